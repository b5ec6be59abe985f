"""Everything needed to fit a potential: data, labels, loss, loop, report, command line."""
