//! A certification on a stack of its own, as its users run it.

use serde_json::Value;

use super::{Stack, place, stderr};

#[test]
fn a_certification_kills_processes_of_its_own_stack_and_takes_it_down() {
    let _place = place();
    let stack = Stack::new();
    let out = stack.folder.path().join("out");
    let faults = ["orchestrator-killed", "participant-killed", "fails-after-commit"];
    let mut arguments = vec!["certify", "--json", "--step", "payment", "--out", out.to_str().expect("a path")];
    arguments.extend(faults.iter().flat_map(|fault| ["--fault", fault]));
    let output = stack.run(&arguments);
    let told = format!("{}{}", String::from_utf8_lossy(&output.stdout), stderr(&output));
    assert!(output.status.success(), "{told}");

    let report: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    assert_eq!((&report["certified"], &report["audited"]), (&Value::from(true), &Value::from(true)), "{told}");
    let cells = report["sagas"][0]["cells"].as_array().expect("cells");
    assert_eq!(cells.len(), faults.len(), "{told}");
    for cell in cells {
        let proof = cell["proof"].to_string();
        assert!(cell["verdict"] == "green" && proof.contains("was process"), "{told}");
    }
    let page = std::fs::read_to_string(out.join("certify.html")).expect("a page");
    assert!(faults.iter().all(|fault| page.contains(fault)) && !page.contains("<script"), "{page}");
    assert!(out.join("certify.json").is_file());

    // Its folder was named, so its logs are still there; nothing runs.
    let components = stack.components();
    assert!(components.iter().all(|component| component["state"] == "stopped"), "{components:#?}");
}
