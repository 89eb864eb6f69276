//! The daemon aborts at every recorded step, with guests that answer at once and with real ones.

use banger_testkit::{Home, Options, fake_guest};
use tests_vm::crash::{through_all_points, through_all_points_with_few_boots};

#[test]
fn with_a_guest_that_answers_at_once() {
    let program = fake_guest("good").display().to_string();
    let config = format!("qemu_bin = \"{program}\"\nvhost_device_vsock_bin = \"{program}\"\n");
    let home = Home::with(Options { config, ..Options::default() });
    through_all_points(&home, |_, _| ());
    home.finish();
}

#[test]
fn with_real_vms() {
    let home = Home::new();
    through_all_points_with_few_boots(&home, |_, _| ());
    home.finish();
}
