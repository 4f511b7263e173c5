"""What ``cleangpt2 doctor`` looks at: the machine, the devices, and one model.

Each part is a generator of findings in a file of its own; `examine` puts them in order. A doctor
must not die of what it finds, so whatever a part raises becomes a finding too.
"""
