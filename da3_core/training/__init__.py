"""The trainings of the paper, each one command on one file of settings: `da3 train CONFIG`."""
