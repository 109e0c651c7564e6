//! Definitions as they are stored: by digest, and for ever.

use saga::{Definition, InvalidDefinition};

use crate::definitions::{ORDER, TRIP, all};

#[test]
fn what_is_stored_gives_the_same_definition_back() {
    for definition in all() {
        let back = Definition::from_json(definition.canonical_json()).expect("our own JSON");
        assert_eq!(back.canonical_json(), definition.canonical_json());
        assert_eq!(back.digest(), definition.digest());
        // in another order and with spaces, as jsonb gives it back
        let value: serde_json::Value = serde_json::from_str(definition.canonical_json()).expect("JSON");
        let pretty = serde_json::to_string_pretty(&value).expect("JSON");
        assert_eq!(Definition::from_json(&pretty).expect("the same").digest(), definition.digest());
    }
}

#[test]
fn the_digest_is_about_the_meaning_and_not_the_writing() {
    let yaml = include_str!("../../../../sagas/order.yaml");
    let parse = |yaml: &str| Definition::parse(yaml, "order.yaml").expect("valid").digest().to_owned();
    let commented = format!("{yaml}# a comment\n").replace("deadline: 15s", "deadline: 15000ms");
    assert_eq!(parse(&commented), ORDER.digest());
    assert_ne!(parse(&yaml.replace("attempts: 4", "attempts: 5")), ORDER.digest());
    assert_eq!(ORDER.digest().len(), 64);
}

/// Instances are pinned to digests: one that changes without the file would cut them off. If this fails,
/// keep the canonical form as it was; new fields must be left out where they have their default.
#[test]
fn the_canonical_form_stays() {
    assert_eq!(TRIP.digest(), "3bd00c4a2e78ce37bd2ee721faed72ceed00536da4ddf73a6a71964753695fdd");
}

#[test]
fn what_this_version_does_not_know_is_refused() {
    let json = ORDER.canonical_json();
    let newer = json.replacen('{', r#"{"colour":"red","#, 1);
    assert!(matches!(Definition::from_json(&newer), Err(InvalidDefinition::Json(_))));
    let broken = json.replace(r#""after":["payment"]"#, r#""after":["shipping"]"#);
    let Err(InvalidDefinition::Rules(found)) = Definition::from_json(&broken) else { panic!("a circle was taken") };
    assert!(found[0].message.starts_with("steps wait for each other"), "{found:?}");
}
