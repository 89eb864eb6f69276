//! The bridge network: leases, TAPs, filter and NAT.
