//! What the author of a definition is told: everything at once, where it is, and what to do.

use saga::Definition;

const ORDER: &str = include_str!("../../../../sagas/order.yaml");
const TRIP: &str = include_str!("sagas/trip.yaml");

/// `LINE: message | hint` for everything that is wrong, in the order of the file.
fn findings(yaml: &str) -> Vec<String> {
    let found = Definition::parse(yaml, "test.yaml").err().unwrap_or_default();
    assert!(found.iter().all(|finding| finding.file == "test.yaml" && finding.line > 0 && finding.column > 0));
    let hint = |hint: Option<String>| hint.map_or_else(String::new, |hint| format!(" | {hint}"));
    found.into_iter().map(|f| format!("{}: {}{}", f.line, f.message, hint(f.hint))).collect()
}

/// The line, from 1, on which `text` is for the first time.
fn line(yaml: &str, text: &str) -> usize {
    1 + yaml.lines().position(|line| line.contains(text)).unwrap_or_else(|| panic!("no line has {text}"))
}

/// The one finding after replacing the first `old` by `new`, without the number of its line, which must be
/// that of the first line with `place`.
#[track_caller]
fn finding(yaml: &str, old: &str, new: &str, place: &str) -> String {
    assert!(yaml.contains(old), "nothing to replace: {old}");
    let broken = yaml.replacen(old, new, 1);
    let found = findings(&broken);
    let [one] = &found[..] else { panic!("not one finding: {found:#?}") };
    let (at, rest) = one.split_once(": ").expect("a line and a message");
    assert_eq!(at.parse(), Ok(line(&broken, place)), "{one}");
    rest.to_owned()
}

#[test]
fn everything_that_is_wrong_is_told_in_one_run() {
    let yaml = r"saga: Order
version: 0
triger: { topic: order.created, type: t }
defaults: { deadline: 15sec, undo: { attemps: 3 } }
steps:
  - name: payment
    after: [shiping]
    command: { topic: payment.requested, type: t, data: { id: trigger/id, version: /saga/version } }
    replies: { success: { topic: payment.requested, type: t } }
    compensation: nothing
  - name: shipping
    after: [payment]
    pivot: yes please
    command: { topic: ship it, type: '', data: { id: /steps/paymnt/id, x: /trigge/x } }
    replies: { failure: { topic: shipping.failed, type: t } }
ends:
  completed: { topic: order.completed, type: t }
  cancelled: { topic: order.completed, type: t }
  parked: [order.parked]
";
    assert_eq!(
        findings(yaml),
        [
            "1: missing field \"trigger\" | The message that starts a saga.",
            "1: \"Order\" is no name | lower case letters, digits and hyphens, a letter first, at most 64",
            "2: version: must be at least 1",
            "3: unknown field \"triger\" | did you mean \"trigger\"?",
            "4: deadline: \"15sec\" is no duration | a whole number and a unit: 500ms, 15s, 5m or 1h, up to nine digits",
            "4: unknown field \"attemps\" | did you mean \"attempts\"?",
            "7: after: there is no step \"shiping\" | did you mean \"shipping\"?",
            "8: \"trigger/id\" is no JSON Pointer: a JSON Pointer starts with \"/\" | write \"/trigger/id\", or {const: trigger/id} for a fixed value",
            "8: /saga/version: changes while the saga runs, and a command that is sent again must be the same | commands can use /saga/id; only ends have /saga/version and /saga/reason",
            "9: topic \"payment.requested\" is used twice: the command of payment and the success of payment | give each its own topic",
            "10: compensation: expected \"none\", found \"nothing\"",
            "13: pivot: expected true or false, found \"yes please\"",
            "14: \"ship it\" is no name of a Kafka topic | letters, digits, \".\", \"_\" and \"-\", at most 249",
            "14: type: must not be empty",
            "14: /steps/paymnt/id: there is no step \"paymnt\" | did you mean \"payment\"?",
            "14: /trigge/x: there is no /trigge | did you mean \"trigger\"?",
            "15: missing field \"success\" | It was done. The value of this reply is the output of the step.",
            "18: topic \"order.completed\" is used twice: the completed event and the cancelled event | give each its own topic",
            "19: parked: expected a mapping",
        ]
    );
}

#[test]
fn text_that_is_no_yaml_is_told_with_its_place() {
    for yaml in ["saga: [order", "saga: order\nsaga: order\n", "saga: &a order\nversion: *b\n", "\tsaga: x", ""] {
        let found = Definition::parse(yaml, "test.yaml").expect_err("no definition");
        assert!(found[0].line > 0 && !found[0].message.is_empty(), "{found:?}");
    }
    let found = Definition::parse("just text", "test.yaml").expect_err("no definition");
    assert_eq!(found[0].to_string(), "test.yaml:1:1: expected a mapping, found \"just text\"");
}

#[test]
fn steps_that_wait_for_each_other_are_named() {
    let message = finding(ORDER, "- name: payment\n", "- name: payment\n    after: [shipping]\n", "after: [shipping]");
    let way = "steps wait for each other: payment after shipping after inventory after payment";
    assert_eq!(message, format!("{way} | remove one of these from \"after\""));
    let message = finding(ORDER, "after: [payment]", "after: [payment, inventory]", "after: [payment, inventory]");
    assert_eq!(message, "steps wait for each other: inventory after inventory | remove one of these from \"after\"");
    let message = finding(ORDER, "after: [payment]", "after: [payment, payment]", "after: [payment, payment]");
    assert_eq!(message, "after: \"payment\" is named twice");
}

#[test]
fn two_steps_of_one_name_are_told() {
    let yaml = ORDER.replace("after: [inventory]", "after: [payment]").replace("name: inventory", "name: payment");
    let place = 1 + yaml
        .lines()
        .enumerate()
        .filter(|(_, line)| line.contains("name: payment"))
        .map(|(i, _)| i)
        .max()
        .expect("two");
    assert_eq!(
        findings(&yaml),
        [format!("{place}: step \"payment\" is there twice: steps 1 and 2 | names of steps are unique")]
    );
}

#[test]
fn a_step_before_the_pivot_needs_a_way_back() {
    let hint = "give its compensation, or \"compensation: none\" if it leaves nothing to undo";
    let message = finding(TRIP, "    compensation: none\n", "", "name: quote");
    assert_eq!(message, format!("\"quote\" has no compensation, and a later failure would have to undo it | {hint}"));
    // without a pivot every step needs one
    let message = finding(TRIP, "    pivot: true\n", "", "name: payment");
    assert_eq!(message, format!("\"payment\" has no compensation, and a later failure would have to undo it | {hint}"));
}

#[test]
fn there_is_one_pivot_and_every_step_is_before_or_after_it() {
    let two = ORDER.replace("after: [payment]\n", "after: [payment]\n    pivot: true\n");
    assert_eq!(
        findings(&two),
        [format!(
            "{}: \"shipping\" cannot be the pivot too: \"inventory\" is | a saga has at most one pivot",
            line(&two, "name: shipping") + 2
        )]
    );
    let message = finding(TRIP, "after: [insurance, hotel]", "after: [insurance]", "name: hotel");
    assert_eq!(
        message,
        "\"hotel\" runs beside the pivot \"payment\" | let \"payment\" come after it, or it after \"payment\""
    );
}

#[test]
fn an_output_is_only_for_those_who_come_after() {
    let message = finding(
        TRIP,
        "hotel.requested.v1, data: { trip: /saga/id }",
        "hotel.requested.v1, data: { trip: /steps/flight/id }",
        "/steps/flight/id",
    );
    assert_eq!(
        message,
        "/steps/flight/id: \"flight\" does not come before \"hotel\" | let \"hotel\" come after \"flight\""
    );
    let message = finding(
        TRIP,
        "hotel.requested.v1, data: { trip: /saga/id }",
        "hotel.requested.v1, data: { trip: /steps/hotel/id }",
        "/steps/hotel/id",
    );
    assert_eq!(message, "/steps/hotel/id: a command cannot use the output of its own step");
    let message = finding(TRIP, "version: /saga/version", "version: /saga/versoin", "/saga/versoin");
    assert_eq!(message, "/saga/versoin: a saga has no \"versoin\" | did you mean \"version\"?");
}

#[test]
fn patience_has_limits() {
    assert_eq!(finding(ORDER, "attempts: 4", "attempts: 0", "attempts: 0"), "attempts: must be at least 1");
    assert_eq!(finding(ORDER, "attempts: 4", "attempts: 9999", "attempts: 9999"), "attempts: must be at most 1000");
    assert_eq!(
        finding(ORDER, "deadline: 15s", "deadline: 0s", "deadline: 0s"),
        "deadline: must be longer than nothing"
    );
    let found = findings(&ORDER.replace("maxBackoff: 5m", "maxBackoff: 5ms"));
    assert_eq!(found.len(), 3, "told for every step that inherits it: {found:?}");
    assert!(found[0].ends_with("starts above its maximum | make maxBackoff at least backoff"), "{found:?}");
}

#[test]
fn a_saga_without_steps_is_none() {
    let (before, rest) = ORDER.split_once("steps:").expect("steps");
    let (_, ends) = rest.split_once("\nends:").expect("ends");
    assert_eq!(findings(&format!("{before}steps: []\nends:{ends}")).len(), 1);
}
