use std::os::unix::fs::PermissionsExt;

use super::find;
use super::*;
use crate::evidence::{Event, Evidence, RecordWriter, Sample};
use crate::plan::SourceName;

const WALL_MS: u64 = 1_795_235_000_000;

fn note(text: &str) -> Stamped {
    Stamped {
        at_ns: 1,
        wall_ms: 2,
        event: Event::Note { text: text.into() },
    }
}

fn sample(at_ns: u64) -> Record {
    Record::Sample(Sample {
        source: SourceName::new("backlog"),
        series: "backlog:outbox".into(),
        at_ns,
        value: 3.0,
    })
}

fn folder() -> (tempfile::TempDir, RunFolder) {
    let dir = tempfile::tempdir().unwrap();
    let folder = RunFolder::create(&dir.path().join("reports"), WALL_MS).unwrap();
    (dir, folder)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn runs_of_one_minute_get_folders_of_their_own_that_nobody_else_can_read() {
    let (_dir, first) = folder();
    let second = RunFolder::create(first.path().parent().unwrap(), WALL_MS).unwrap();
    assert_ne!(first.run_id(), second.run_id());
    assert!(
        first.run_id().starts_with("2026-11-21-"),
        "{}",
        first.run_id()
    );
    first.write("outcome.json", b"{}").unwrap();
    assert_eq!(mode(first.path()), 0o700);
    assert_eq!(mode(&first.file("outcome.json")), 0o600);
}

#[test]
fn a_file_is_replaced_whole_and_leaves_nothing_beside_it() {
    let (_dir, folder) = folder();
    folder.write("report.html", b"old and longer").unwrap();
    folder.write("report.html", b"new").unwrap();
    assert_eq!(fs::read(folder.file("report.html")).unwrap(), b"new");
    let names: Vec<_> = fs::read_dir(folder.path())
        .unwrap()
        .map(|it| it.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.starts_with('.'))
        .collect();
    assert!(names.is_empty(), "{names:?}");
}

#[test]
fn latest_points_at_the_newest_run_and_is_found() {
    let (_dir, first) = folder();
    let reports = first.path().parent().unwrap().to_owned();
    first.write("plan.json", b"{}").unwrap();
    first.point_latest().unwrap();
    let second = RunFolder::create(&reports, WALL_MS).unwrap();
    second.write("plan.json", b"{}").unwrap();
    second.point_latest().unwrap();
    let canonical = fs::canonicalize(second.path()).unwrap();
    assert_eq!(find(&reports, "latest").unwrap(), canonical);
    assert_eq!(find(&reports, second.run_id()).unwrap(), canonical);
    let by_path = find(Path::new("elsewhere"), second.path().to_str().unwrap());
    assert_eq!(by_path.unwrap(), canonical);
    let missing = find(&reports, "2020-01-01-0000-0000").unwrap_err();
    assert!(matches!(missing.kind, FolderErrorKind::Missing));
}

#[test]
fn what_was_written_reads_back() {
    let (_dir, folder) = folder();
    let mut events = folder.events().unwrap();
    events.append(&note("one")).unwrap();
    events.append(&note("two")).unwrap();
    events.flush().unwrap();
    let mut records: RecordWriter = folder.records();
    records.append(&sample(5)).unwrap();
    records.flush().unwrap();
    let evidence = Evidence::read(folder.path()).unwrap();
    assert_eq!(evidence.events, [note("one"), note("two")]);
    assert_eq!(evidence.samples.len(), 1);
    assert!(evidence.damage.is_empty());
}

#[test]
fn half_a_last_line_of_a_killed_run_is_left_out_without_a_word() {
    let (_dir, folder) = folder();
    let mut events = folder.events().unwrap();
    events.append(&note("one")).unwrap();
    fs::OpenOptions::new()
        .append(true)
        .open(folder.file("events.jsonl"))
        .unwrap()
        .write_all(b"{\"at-ns\":3,\"wall-")
        .unwrap();
    let evidence = Evidence::read(folder.path()).unwrap();
    assert_eq!(evidence.events, [note("one")]);
    assert!(evidence.damage.is_empty());
}

#[test]
fn records_that_are_not_there_any_more_are_lost_rows() {
    let (_reports, run) = folder();
    let mut records = run.records();
    records.append(&sample(1)).unwrap();
    records.flush().unwrap();
    let Record::Sample(sample) = sample(1) else {
        panic!("a sample");
    };
    let mut read = note("read");
    read.event = Event::SourceRead {
        source: sample.source.clone(),
        rows: 3,
        lost: 1,
        error: None,
        clock_error_ns: 0,
    };
    run.events().unwrap().append(&read).unwrap();
    let evidence = Evidence::read(run.path()).unwrap();
    assert_eq!(evidence.sources[&sample.source].lost, 3);
}

#[test]
fn garbage_in_the_middle_is_counted_and_told() {
    let (_dir, folder) = folder();
    let mut records = folder.records();
    records.append(&sample(1)).unwrap();
    records.flush().unwrap();
    let path = folder.file("records/sample.jsonl");
    let good = fs::read(&path).unwrap();
    fs::write(&path, [&good[..], b"garbage\n{}\n", &good[..]].concat()).unwrap();
    let evidence = Evidence::read(folder.path()).unwrap();
    assert_eq!(evidence.samples.len(), 2);
    assert_eq!(evidence.damage.len(), 1);
    let damage = &evidence.damage[0];
    assert_eq!((damage.lines, damage.first_line), (2, 2));
    assert_eq!(damage.file, "sample.jsonl");
}

#[test]
fn a_full_disk_is_told_apart_from_other_troubles() {
    let mut full = LineWriter::open(PathBuf::from("/dev/full")).unwrap();
    full.append(&note("one")).unwrap();
    let error = full.flush().unwrap_err();
    assert!(error.is_full());
    assert_eq!(
        error.to_string(),
        "could not write `/dev/full`: no space left on the disk"
    );
}

#[test]
fn a_file_of_lines_has_a_bound() {
    let (_dir, folder) = folder();
    let mut writer = LineWriter::open(folder.file("events.jsonl")).unwrap();
    writer.bytes = FILE_BYTES_MAX - 1;
    let error = writer.append(&note("one")).unwrap_err();
    assert!(matches!(error.kind, FolderErrorKind::TooLarge(_)));
}

#[test]
fn a_plan_of_a_later_version_is_refused_by_its_number() {
    let (_dir, folder) = folder();
    folder
        .write("plan.json", b"{\"format-version\": 99}")
        .unwrap();
    let error = super::read::read_plan(folder.path()).unwrap_err();
    assert!(error.to_string().contains("format version 99"), "{error}");
}
