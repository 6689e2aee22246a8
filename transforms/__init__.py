"""Pure DataFrame to DataFrame functions: what happens to rows at scale, without session or I/O."""
