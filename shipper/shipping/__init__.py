"""What is shipped when, and what becomes of it."""
