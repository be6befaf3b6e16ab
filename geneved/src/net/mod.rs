//! Netlink: setting interfaces up, and asking the underlay for routes and MTUs.
