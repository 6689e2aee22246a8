"""Generated worlds whose true effects are known."""
