"""Any ASE calculators beside each other on one test set: errors, speed, memory and physics."""
