//! The matrix as a page of its own: no script, nothing to be fetched.

use super::cells::Fault;
use super::report::{CellReport, Report, SagaReport, Verdict};

const STYLE: &str = include_str!("page.css");

/// The report as one HTML document.
#[must_use]
pub fn page(report: &Report) -> String {
    let sagas: String = report.sagas.iter().map(matrix).collect();
    let violations: String =
        report.violations.iter().map(|text| format!("<li class=\"red\">{}</li>", escaped(text))).collect();
    let class = if report.certified { "green" } else { "red" };
    format!(
        "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>symphony certify</title>\n<style>{STYLE}</style></head>\n<body>\n\
         <h1>symphony certify</h1>\n<p class=\"{class}\"><strong>{}</strong></p>\n<p>Began {}. Every cell is one saga \
         on a real stack with one fault aimed at one step. Green: the fault is proven to have happened, and the saga's \
         end, timeline, messages and effects are as they must be. Void: no proof, so it says nothing.</p>\n\
         <ul>{violations}</ul>\n{sagas}</body></html>\n",
        escaped(&report.summary()),
        report.started_at.format("%Y-%m-%d %H:%M:%S UTC"),
    )
}

fn matrix(saga: &SagaReport) -> String {
    let steps = saga.steps();
    let heads: String = steps.iter().map(|step| format!("<th scope=\"col\">{}</th>", escaped(step))).collect();
    let mut rows = String::new();
    for fault in Fault::ALL {
        let cells: Vec<Option<&CellReport>> = steps.iter().map(|step| saga.cell(step, fault)).collect();
        if cells.iter().any(Option::is_some) {
            let cells: String = cells.into_iter().map(cell).collect();
            let meaning = clap::ValueEnum::to_possible_value(&fault);
            let meaning = meaning.as_ref().and_then(|value| value.get_help()).map(ToString::to_string);
            let meaning = escaped(&meaning.unwrap_or_default());
            let name = fault.name();
            rows.push_str(&format!("<tr><th scope=\"row\">{name}<small>{meaning}</small></th>{cells}</tr>\n"));
        }
    }
    format!(
        "<h2>{} version {}</h2>\n<p><code>{}</code></p>\n<table><thead><tr><th></th>{heads}</tr></thead>\n\
         <tbody>{rows}</tbody></table>\n",
        escaped(&saga.name),
        saga.version,
        escaped(&saga.digest),
    )
}

fn cell(cell: Option<&CellReport>) -> String {
    let Some(cell) = cell else { return "<td></td>".to_owned() };
    let class = match cell.verdict {
        Verdict::Green => "green",
        Verdict::Red => "red",
        Verdict::Void => "void",
        Verdict::Exempt => "exempt",
    };
    let item = |class: &str, text: &String| format!("<li class=\"{class}\">{}</li>", escaped(text));
    let violations = cell.violations.iter().map(|text| item("red", text));
    let missing = cell.missing.iter().map(|text| item("void", text));
    let proof = cell.proof.iter().map(|text| item("proof", text));
    let items: String = violations.chain(missing).chain(proof).collect();
    let took = cell.took_ms.map(|took| format!(" <small>{}.{} s</small>", took / 1000, took % 1000 / 100));
    let saga = cell.saga.map(|saga| format!("<p><code>{saga}</code> {}</p>", cell.state.as_deref().unwrap_or("?")));
    format!(
        "<td class=\"{class}\"><details><summary>{}{}</summary>{}<ul>{items}</ul></details></td>",
        cell.verdict.word(),
        took.unwrap_or_default(),
        saga.unwrap_or_default(),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_service_answered_cannot_become_part_of_the_page() {
        assert_eq!(escaped("<script>\"a\" & b"), "&lt;script&gt;&quot;a&quot; &amp; b");
    }
}
