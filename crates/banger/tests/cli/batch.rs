//! One command over many VMs.

use crate::support::{expect, home, run};

#[test]
fn valid_ones_go_on_in_the_order_given() {
    let home = home();
    for name in ["web", "db", "mail"] {
        run(&home, &format!("vm create --name {name} --no-start"));
    }
    expect(
        &run(&home, "vm start mail nope web mail db"),
        1,
        "mail started in N s\nweb started in N s\ndb started in N s\n",
        "error: there is no VM `nope`\nhint: `banger vm list` lists all VMs\n",
    );
    expect(
        &run(&home, "vm stop wbe"),
        3,
        "",
        "error: there is no VM `wbe`\nhint: did you mean `web`?\n",
    );
    expect(&run(&home, "vm stop web web"), 0, "web stopped in N s\n", "");
    let id = home.json(&["vm", "show", "db"])["id"].as_str().unwrap().to_owned();
    expect(&run(&home, &format!("vm kill {id} db {}", &id[..6])), 0, "db killed\n", "");
    let json = home.run(&["vm", "start", "web", "nope", "mail", "--json"]);
    assert_eq!(json.code, 1);
    let document: serde_json::Value = serde_json::from_str(&json.out).unwrap();
    let results: Vec<(&str, &str)> = document
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["reference"].as_str().unwrap(), one["result"].as_str().unwrap()))
        .collect();
    assert_eq!(results, [("web", "done"), ("nope", "failed"), ("mail", "already")]);
    assert_eq!(document[1]["error"]["code"], "not_found");
    assert_eq!(document[2]["name"], "mail");
    assert_eq!(json.err, "");
    expect(
        &run(&home, "vm delete web db"),
        1,
        "db deleted\n",
        "error: cannot delete `web`: it is running\n\
         hint: stop it first, or use `banger vm delete -f web`\n",
    );
    expect(&run(&home, "vm delete -f web mail"), 0, "web deleted\nmail deleted\n", "");
    home.finish();
}

#[test]
fn a_single_failure_has_its_own_code() {
    let home = home();
    run(&home, "vm create --name web");
    assert_eq!(run(&home, "vm delete web").code, 4);
    assert_eq!(run(&home, "vm delete nope").code, 3);
    assert_eq!(run(&home, "vm delete nope nope").code, 3);
    assert_eq!(run(&home, "vm delete nope none").code, 1);
    run(&home, "vm delete -f web");
    home.finish();
}

#[test]
fn an_ambiguous_prefix_names_the_candidates() {
    let home = home();
    // Eighteen ids, sixteen first digits: two of them begin alike.
    for number in 0..18 {
        run(&home, &format!("vm create --name v{number} --no-start"));
    }
    let list = home.json(&["vm", "list"]);
    let mut ids: Vec<&str> =
        list.as_array().unwrap().iter().map(|vm| vm["id"].as_str().unwrap()).collect();
    ids.sort_unstable();
    let first = ids.windows(2).find(|pair| pair[0][..1] == pair[1][..1]).unwrap()[0];
    let prefix = &first[..1];
    for line in [format!("vm start {prefix}"), format!("vm show {prefix}")] {
        let ambiguous = run(&home, &line);
        assert_eq!(ambiguous.code, 3, "{line}");
        let start = format!("error: `{prefix}` matches v");
        assert!(ambiguous.err.starts_with(&start), "{}", ambiguous.err);
        assert!(ambiguous.err.contains(&format!("({first})")), "{}", ambiguous.err);
    }
    let all: Vec<&str> = ["vm", "delete"].into_iter().chain(ids).collect();
    home.ok(&all);
    home.finish();
}
