//! Two hosts in network namespaces on this machine, joined by a veth: the demonstration.
