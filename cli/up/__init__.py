"""`dms-frontend up`: a whole DMS on one machine, every part a real process of its own."""
