"""What this machine offers for confinement, what each missing thing costs, and how to mend it."""
