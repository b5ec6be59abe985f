"""Questions of physics, put to any calculator: each file one, answered as plain numbers."""
