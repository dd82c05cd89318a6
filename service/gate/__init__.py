"""What every request passes before a route sees it: who asks for what, and is there room."""
