"""Data put to the question before a network is fitted to them: potential-doctor."""
