//! The report and live output, on a run built in code: escaped, self-contained, the same bytes
//! every time, and right in a real browser.
//!
//! The browser's part needs `CHAOS_TEST_CHROMIUM=/path/to/chromium`; without it those tests say
//! that they were skipped.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests: a panic is the finding"
)]

use std::path::{Path, PathBuf};

use chaos_harness::display::{Display, Ending, Options};
use chaos_harness::evidence::{Record, StopReason};
use chaos_harness::report::{Inconclusive, html, junit, outcome};
use chaos_harness::verdict::Status;

use crate::outage::{HOSTILE, Outage};

fn page(outage: &Outage) -> String {
    String::from_utf8(html::render(&outage.run()).unwrap()).unwrap()
}

#[test]
fn same_run_renders_to_the_same_bytes() {
    let (one, two) = (Outage::new(), Outage::new());
    assert_eq!(page(&one), page(&two));
    assert_eq!(
        outcome::render(&one.run()).unwrap(),
        outcome::render(&two.run()).unwrap()
    );
}

#[test]
fn what_services_answered_never_becomes_markup() {
    let text = page(&Outage::new());
    assert!(!text.contains("<script>alert"), "a script got through");
    assert!(!text.contains("<img"), "an element got through");
    assert!(!text.contains(HOSTILE));
    assert!(
        text.contains("&#60;script&#62;alert"),
        "the text itself must be there, escaped"
    );
}

#[test]
fn page_is_one_small_file_that_loads_nothing() {
    let text = page(&Outage::new());
    assert!(text.len() < 2_000_000, "{} bytes", text.len());
    for loads in [
        "src=", "@import", "url(", "<link", "style=\"", "onclick", "fetch(",
    ] {
        let found = text.replace("src=x onerror", "").contains(loads);
        assert!(!found, "`{loads}` in the page");
    }
    assert!(text.contains("default-src &#39;none&#39;"));
}

#[test]
fn failures_come_first_and_say_where_they_were_declared() {
    let text = page(&Outage::new());
    let at = |needle: &str| text.find(needle).unwrap_or_else(|| panic!("no `{needle}`"));
    assert!(at("<b>orders-answered</b>") < at("<b>sagas-settle</b>"));
    assert!(at("<b>sagas-settle</b>") < at("<b>breaker-opens</b>"));
    assert!(text.contains("scenarios/payment-outage.yaml:19:3"));
    assert!(
        text.contains("orders-answered: { errors: { at-most: 1% } }"),
        "the user's line"
    );
    assert!(text.contains("and 1 more"));
    assert!(text.contains("SHOP_DEFECTS=m10 chaos run scenarios/payment-outage.yaml --seed 4242"));
}

fn section<'p>(page: &'p str, id: &str) -> &'p str {
    let from = page.split(&format!("<section id=\"{id}\"")).nth(1);
    let section = from.and_then(|text| text.split("</section>").next());
    section.unwrap_or_else(|| panic!("no section `{id}`"))
}

/// Points of all paths of a class.
fn points(section: &str, class: &str) -> usize {
    let start = format!("class=\"{class}\" d=\"");
    let paths = section.split(&start).skip(1);
    let path = paths.filter_map(|text| text.split('"').next());
    path.map(|path| path.matches(['M', 'L', 'H', 'V', 'h']).count())
        .sum()
}

#[test]
fn every_chart_and_table_has_what_it_is_there_for() {
    let text = page(&Outage::new());
    // A run of 75 s: a point a second at least for what is there all the time.
    for (id, class, least) in [
        ("operations", "area o-done", 75),
        ("operations", "line l-offered", 75),
        ("operations", "line l-p50", 40),
        ("operations", "line l-p90", 40),
        ("operations", "line l-p99", 40),
        ("operations", "line l-max", 40),
        ("operations", "line l-failed", 5),
        ("operations", "area e0", 75),
        ("operations", "heat h1", 20),
        ("operations", "heat h8", 1),
        ("windows", "line w0", 20),
        ("windows", "line w1", 20),
        ("windows", "line w0 dashed", 20),
        ("links", "area c-calls", 75),
        ("links", "area c-errors", 20),
        ("backlogs", "line l-sample", 20),
    ] {
        let found = points(section(&text, id), class);
        assert!(found >= least, "`{class}` in {id} has {found} points");
    }
    let timeline = section(&text, "timeline");
    for bar in [
        "bar phase baseline",
        "bar phase recovery",
        "bar fault",
        "bar open",
        "bar half-open",
        "bar closed",
        "shade",
    ] {
        let rect = format!("<rect class=\"{bar}\"");
        assert!(timeline.contains(&rect), "no `{bar}` on the time line");
    }
    let windows = section(&text, "windows");
    for told in [
        "<small>×",
        " ms to ",
        "class=\"worse\"",
        ">p99.9<",
        "done or accepted",
    ] {
        assert!(windows.contains(told), "no `{told}` in the windows");
    }
    let honesty = section(&text, "honesty");
    for told in [
        "load model",
        "conservation",
        "dropped tickets",
        "send lag",
        "worker CPU",
        "clock",
        "proxy",
        "version",
        "seed",
        "Not exercised",
        "Repeat it",
    ] {
        assert!(honesty.contains(told), "no `{told}` in the honesty strip");
    }
}

#[test]
fn run_without_any_evidence_still_renders() {
    let mut outage = Outage::new();
    outage.evidence = Default::default();
    outage.verdicts.verdicts.clear();
    outage.verdicts.ended = StopReason::Failed;
    outage.verdicts.ended_why = Some("`orders` was not ready within 10s".into());
    let text = page(&outage);
    assert!(text.contains("was not ready within 10s"));
    assert!(text.contains("Nothing was judged"));
}

#[test]
fn ten_hours_keep_to_a_thousand_points_and_two_megabytes() {
    let mut outage = Outage::new();
    // The same run 480 times slower: same operations, 10 h.
    let stretch = |ns: &mut u64| *ns *= 480;
    for stamped in &mut outage.evidence.events {
        stretch(&mut stamped.at_ns);
        if let chaos_harness::evidence::Event::LoadStarted { t0_ns } = &mut stamped.event {
            stretch(t0_ns);
        }
    }
    for operation in &mut outage.evidence.operations {
        let took = operation.latency_ns();
        stretch(&mut operation.intended_ns);
        operation.ended_ns = operation.intended_ns + took;
    }
    outage.plan.phases.load_end *= 480;
    let text = page(&outage);
    assert!(text.len() < 2_000_000, "{} bytes", text.len());
    let data = text
        .split("id=\"data\">")
        .nth(1)
        .unwrap()
        .split("</script>")
        .next()
        .unwrap();
    let data: serde_json::Value = serde_json::from_str(data).unwrap();
    let points = data["charts"]["rate0"]["series"][0][2]
        .as_array()
        .unwrap()
        .len();
    assert!((500..=1000).contains(&points), "{points}");
}

#[test]
fn outcome_matches_its_schema() {
    let schema: serde_json::Value = serde_json::from_slice(&outcome::schema().unwrap()).unwrap();
    let outcome = outcome::render(&Outage::new().run()).unwrap();
    let outcome: serde_json::Value = serde_json::from_slice(&outcome).unwrap();
    jsonschema::validate(&schema, &outcome).unwrap();
    assert_eq!(outcome["status"], "fail");
    assert_eq!(outcome["exit"], "violated");
}

#[test]
fn committed_outcome_schema_is_the_generated_one() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("schema/outcome.schema.json");
    let generated = String::from_utf8(outcome::schema().unwrap()).unwrap();
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    if generated != committed {
        std::fs::write(&path, generated).unwrap();
        panic!(
            "{} was stale; it is written anew, commit it",
            path.display()
        );
    }
}

#[test]
fn junit_never_calls_an_inconclusive_property_a_success() {
    let outage = Outage::new();
    for (how, mark) in [
        (Inconclusive::Fail, "<error"),
        (Inconclusive::Warn, "<skipped"),
    ] {
        let xml = String::from_utf8(junit::render(vec![junit::suite(&outage.run(), how)]).unwrap())
            .unwrap();
        let case = xml
            .split("<testcase")
            .find(|case| case.contains("sagas-settle"))
            .unwrap();
        assert!(case.contains(mark), "{case}");
        assert!(xml.contains("<failure"));
    }
}

fn options(live: bool) -> Options {
    Options {
        color: false,
        width: 100,
        live,
        progress: true,
        verbose: false,
        run_folder: "reports/2026-11-21-0423-7f3a".into(),
    }
}

fn shown(outage: &Outage, options: Options) -> String {
    let mut out = Vec::new();
    let mut display = Display::new(&outage.plan, options, &mut out);
    for stamped in &outage.evidence.events {
        let due = outage.evidence.transitions.iter();
        for transition in due.filter(|t| t.at_ns / 1_000_000_000 == stamped.at_ns / 1_000_000_000) {
            display
                .on_record(&Record::Transition(transition.clone()))
                .unwrap();
        }
        display.on_event(stamped).unwrap();
    }
    let ending = Ending {
        lasted: std::time::Duration::from_secs(78),
        exit_code: 1,
        inconclusive_warns: false,
        report: Some("reports/2026-11-21-0423-7f3a/report.html".into()),
    };
    display.finish(&outage.verdicts, &ending).unwrap();
    String::from_utf8(out).unwrap()
}

#[test]
fn plain_output_tells_the_run_in_lines_that_a_log_can_hold() {
    let text = shown(&Outage::new(), options(false));
    insta::assert_snapshot!(text);
    assert!(
        text.lines().all(|line| line.chars().count() <= 100),
        "{text}"
    );
    assert!(!text.contains('\x1b'));
}

#[test]
fn last_lines_are_enough_for_a_log() {
    let text = shown(&Outage::new(), options(false));
    let last: Vec<&str> = text.lines().rev().take(2).collect();
    assert_eq!(
        last[1],
        "FAIL  1 failed, 1 inconclusive, 5 passed  78s  exit 1"
    );
    assert_eq!(last[0], "      reports/2026-11-21-0423-7f3a/report.html");
    let at = |needle: &str| text.find(needle).unwrap();
    assert!(at("\nINCONCLUSIVE") > at("\nPASS") && at("\nFAIL") > at("\nINCONCLUSIVE"));
}

#[test]
fn live_block_is_taken_away_before_anything_is_said_below_it() {
    let text = shown(&Outage::new(), options(true));
    let drawn: usize = text.matches("\x1b[J").count();
    assert!(drawn > 50, "{drawn}");
    assert!(
        !text.rsplit("\x1b[J").next().unwrap().contains("━"),
        "a block stays behind"
    );
    assert!(text.contains("breaker   payments -> psp OPEN"));
    assert!(text.contains("psp-silent on for"));
}

#[test]
fn interrupted_run_says_that_it_did_not_come_to_its_end() {
    let mut outage = Outage::new();
    outage.verdicts.ended = StopReason::Interrupt;
    outage.verdicts.ended_why = Some("interrupted".into());
    outage
        .verdicts
        .verdicts
        .retain(|verdict| verdict.status == Status::Pass);
    let text = shown(&outage, options(false));
    assert!(text.contains("did not come to its end: interrupted"));
    assert!(text.contains("\nINCONCLUSIVE  5 passed"));
}

/// The page in a folder of its own, and the browser to look at it with.
#[expect(clippy::print_stderr, reason = "a skipped test says so")]
fn in_browser() -> Option<(PathBuf, tempfile::TempDir, PathBuf)> {
    let chromium = browser();
    if chromium.is_none() {
        eprintln!("skipped: set CHAOS_TEST_CHROMIUM to a Chromium to run this");
    }
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("report.html");
    std::fs::write(&file, page(&Outage::new())).unwrap();
    Some((chromium?, folder, file))
}

#[expect(
    clippy::disallowed_methods,
    reason = "a test's switch, read at its entry"
)]
fn browser() -> Option<PathBuf> {
    std::env::var_os("CHAOS_TEST_CHROMIUM").map(PathBuf::from)
}

/// Runs the browser on a page with a script appended that writes what it found into the title.
#[expect(clippy::disallowed_methods, reason = "a browser is no part of a run")]
fn look(chromium: &Path, folder: &Path, url: &str, more: &[&str]) -> (String, String) {
    let output = std::process::Command::new(chromium)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--no-first-run",
        ])
        .args([
            "--disable-background-networking",
            "--disable-component-update",
            "--disable-sync",
        ])
        .args([
            "--enable-logging=stderr",
            "--v=0",
            "--virtual-time-budget=2000",
        ])
        .arg(format!(
            "--user-data-dir={}",
            folder.join("profile").display()
        ))
        .args(more)
        .arg(url)
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

#[test]
fn page_opens_from_disk_without_a_console_message() {
    let Some((chromium, folder, file)) = in_browser() else {
        return;
    };
    let url = format!("file://{}", file.display());
    let (dom, log) = look(&chromium, folder.path(), &url, &["--dump-dom"]);
    assert!(!log.contains("CONSOLE"), "{log}");
    for section in [
        "properties",
        "timeline",
        "operations",
        "windows",
        "faults",
        "links",
    ] {
        assert!(dom.contains(&format!("id=\"{section}\"")), "no {section}");
    }
    // The script ran: it gives each chart of the axis a cursor and a place for the keyboard.
    assert!(dom.contains("class=\"cursor\"") && dom.contains("tabindex=\"0\""));
}

/// A page around the report, 380 px wide, whose script writes what it finds into its body.
const OUTER: &str = r#"<!doctype html><body><iframe src="report.html" width="380" height="900"></iframe>
<script>
onload = () => {
  const page = document.querySelector("iframe").contentDocument;
  const first = page.querySelector("details.property");
  const was = first.open;
  first.querySelector("summary").click();
  const clicked = first.open !== was;
  const root = page.documentElement;
  const focus = [...page.querySelectorAll("summary")].every((s) => (s.focus(), page.activeElement === s || !s.checkVisibility()));
  page.querySelectorAll("details").forEach((part) => { part.open = true; });
  document.body.append(`clicked ${clicked} focus ${focus} over ${root.scrollWidth - root.clientWidth}`);
};
</script>"#;

#[test]
fn evidence_opens_by_click_and_nothing_scrolls_sideways_at_380_px() {
    let Some((chromium, folder, file)) = in_browser() else {
        return;
    };
    let outer = file.with_file_name("outer.html");
    std::fs::write(&outer, OUTER).unwrap();
    let url = format!("file://{}", outer.display());
    let more = ["--dump-dom", "--allow-file-access-from-files"];
    let (dom, log) = look(&chromium, folder.path(), &url, &more);
    assert!(
        dom.contains("clicked true focus true over 0"),
        "{dom}\n{log}"
    );
}

/// Writes the page where `CHAOS_TEST_PAGE` says, to be looked at.
#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "a test's switch, read at its entry"
)]
fn page_can_be_kept_to_be_looked_at() {
    if let Some(path) = std::env::var_os("CHAOS_TEST_PAGE") {
        std::fs::write(path, page(&Outage::new())).unwrap();
    }
}
