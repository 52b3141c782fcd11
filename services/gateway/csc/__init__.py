"""The words of the CSC: what its two versions ask and answer, as one internal model. Knows no bus and no HTTP."""
