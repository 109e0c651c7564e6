//! The definitions the tests run: a sequence, a graph, steps past the pivot, and nothing to undo.

use std::sync::LazyLock;

use saga::Definition;

pub(crate) static ORDER: LazyLock<Definition> =
    LazyLock::new(|| read("order.yaml", include_str!("../../../../sagas/order.yaml")));
pub(crate) static TRIP: LazyLock<Definition> = LazyLock::new(|| read("trip.yaml", include_str!("sagas/trip.yaml")));
pub(crate) static PARCEL: LazyLock<Definition> =
    LazyLock::new(|| read("parcel.yaml", include_str!("sagas/parcel.yaml")));
pub(crate) static REPORT: LazyLock<Definition> =
    LazyLock::new(|| read("report.yaml", include_str!("sagas/report.yaml")));

pub(crate) fn all() -> [&'static Definition; 4] {
    [&ORDER, &TRIP, &PARCEL, &REPORT]
}

fn read(file: &str, yaml: &str) -> Definition {
    Definition::parse(yaml, file).unwrap_or_else(|found| {
        let lines: Vec<String> = found.iter().map(ToString::to_string).collect();
        panic!("{}", lines.join("\n"))
    })
}
