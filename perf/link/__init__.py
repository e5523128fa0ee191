"""A long fat network between two network namespaces of this machine, made of two TUN devices."""
