//! `vm prune`.

use crate::support::{expect, home, run};

#[test]
fn stopped_vms_are_deleted_and_the_freed_space_is_shown() {
    let home = home();
    expect(&run(&home, "vm prune -f"), 0, "", "no stopped VMs to delete\n");
    for name in ["one", "two", "three"] {
        run(&home, &format!("create --name {name} --no-start"));
    }
    run(&home, "create --name up");
    expect(&run(&home, "vm prune -f --older 9999999w"), 0, "", "no stopped VMs to delete\n");
    expect(&run(&home, "vm prune -f --filter image=nope"), 0, "", "no stopped VMs to delete\n");
    let one = "one deleted\n";
    expect(&run(&home, "vm prune -f --filter name=one"), 0, one, "freed 8 MiB\n");
    let pruned = home.json(&["prune", "--force"]);
    assert_eq!(pruned["freed_bytes"], 16 << 20);
    let names = pruned["vms"].as_array().unwrap().iter();
    let names: Vec<_> = names.map(|vm| (vm["name"].as_str(), vm["result"].as_str())).collect();
    assert_eq!(names, [(Some("three"), Some("done")), (Some("two"), Some("done"))]);
    assert_eq!(home.state("up"), "running", "a running VM is left alone");
    let nothing = home.json(&["prune", "--force"]);
    assert_eq!(nothing, serde_json::json!({"vms": [], "freed_bytes": 0}));
    run(&home, "rm -f up");
    home.finish();
}
