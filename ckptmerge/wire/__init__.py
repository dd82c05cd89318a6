"""What ckptmerge says to programs: JSON, one shape for the command line and for HTTP."""
