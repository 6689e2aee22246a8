"""Pure DataFrame to DataFrame functions: what happens to rows at scale, with no session and no I/O."""
