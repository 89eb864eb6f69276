//! Block devices of VMs: loop devices and device-mapper snapshots.
