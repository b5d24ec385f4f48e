"""What people look at: boards, rules, the console."""
