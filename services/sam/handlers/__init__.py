"""The stories of the SAM's messages: signing, reading, enrolling, ending."""
