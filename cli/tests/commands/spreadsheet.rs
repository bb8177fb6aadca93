//! `ami-guard audit --csv`, read as a spreadsheet reads it.

use std::collections::BTreeMap;
use std::process::Command;

use serde_json::Value;
use sim::{Fault, FaultKind, Image, Snapshot};

use super::{EXPECT, LOST, before, code, err, lines, says, simulated, temporary};

/// The rows of a CSV file, each with its cells by column.
fn table(path: &str) -> Vec<BTreeMap<String, String>> {
    let mut reader = csv::Reader::from_path(path).unwrap();
    let rows = reader.deserialize().map(|row| row.unwrap());
    rows.collect()
}

fn fresh(name: &str) -> String {
    let path = temporary(name);
    let _ = std::fs::remove_file(&path);
    path.to_str().unwrap().to_owned()
}

#[tokio::test]
async fn each_record_is_a_row_with_the_record_s_keys_as_columns() {
    let sim = simulated().await;
    let (path, state) = (fresh("audit.csv"), fresh("csv.jsonl"));
    let arguments = ["audit", "--json", "--csv", &path, "--state", &state];
    // The second time, the file replaces the first one.
    for _ in 0..2 {
        let output = before(&sim, &arguments).await;
        assert_eq!(code(&output), 1, "{}", err(&output));
        let (rows, records) = (table(&path), lines(&output));
        assert_eq!(rows.len(), records.len());
        for (row, record) in rows.iter().zip(&records) {
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            for key in ["image_id", "account", "region", "verdict", "kind", "reason"] {
                assert_eq!(row[key], text(&record[key]), "{key}");
            }
            assert_eq!(
                row["actual.platform_details"],
                text(&record["actual"]["platform_details"])
            );
            assert_eq!(row["expected.source"], text(&record["expected"]["source"]));
        }
        let lost = rows.iter().find(|row| row["image_id"] == LOST).unwrap();
        assert_eq!(lost["expected.platform"], "Windows");
        assert_eq!(
            (lost["action"].as_str(), lost["held_by"].as_str()),
            ("hold", "identity-unknown")
        );
    }
}

#[tokio::test]
async fn a_name_from_outside_is_neither_a_formula_nor_another_cell() {
    let sim = simulated().await;
    let image = |id: &str, name: &str, tag: Option<&str>| Image {
        name: name.into(),
        tags: tag
            .map(|tag| (EXPECT.to_owned(), tag.to_owned()))
            .into_iter()
            .collect(),
        ..Image::new(id)
    };
    let names = [
        (
            "ami-0a1b2c3d4e5f6000a",
            "=HYPERLINK(\"http://x\")",
            "'=HYPERLINK(\"http://x\")",
        ),
        ("ami-0a1b2c3d4e5f6000b", "-2+3", "'-2+3"),
        ("ami-0a1b2c3d4e5f6000c", "@SUM(A1)", "'@SUM(A1)"),
        ("ami-0a1b2c3d4e5f6000d", "a\",\"b\r\n+1", "a\",\"b\\r\\n+1"),
        ("ami-0a1b2c3d4e5f6000e", "x;=1+1", "x;'=1+1"),
    ];
    for (id, name, _) in names {
        sim.world()
            .add_snapshot(Snapshot::new(id.replace("ami-", "snap-")));
        sim.world()
            .add_image(image(id, name, Some(";=cmd|' /C calc'!A0")));
    }
    let (path, state) = (fresh("hostile.csv"), fresh("hostile-csv.jsonl"));
    let output = before(&sim, &["audit", "--csv", &path, "--state", &state]).await;
    assert_eq!(code(&output), 1, "{}", err(&output));
    let rows = table(&path);
    for (id, _, cell) in names {
        let row = rows.iter().find(|row| row["image_id"] == id).unwrap();
        assert_eq!(row["name"], cell);
        says(&row["reason"], ";'=cmd|");
    }
    // Another reader, which takes each line break and each quote seriously.
    let script = "import csv, sys; rows = list(csv.DictReader(open(sys.argv[1], newline=''), strict=True)); \
                  assert all(None not in row and None not in row.values() for row in rows); \
                  bad = [cell for row in rows for cell in row.values() if cell[:1] in list('=+-@\\t\\r')]; \
                  assert not bad, bad; print(len(rows))";
    let python = Command::new("python3").args(["-c", script, &path]).output();
    let python = python.unwrap();
    let said = String::from_utf8_lossy(&python.stderr);
    assert_eq!(String::from_utf8_lossy(&python.stdout), "9\n", "{said}");
}

#[tokio::test]
async fn without_a_result_an_earlier_csv_file_stays() {
    let sim = simulated().await;
    let (path, state) = (fresh("kept.csv"), fresh("kept-csv.jsonl"));
    let arguments = ["audit", "--csv", &path, "--state", &state];
    before(&sim, &arguments).await;
    let kept = std::fs::read_to_string(&path).unwrap();
    sim.inject(Fault::always("DescribeImages", FaultKind::AccessDenied));
    let all = [&arguments[..], &["--all-regions"]].concat();
    let output = before(&sim, &[&all[..], &["--force"]].concat()).await;
    assert_eq!(code(&output), 3);
    says(
        &err(&output),
        "no page was completed, so no CSV file was written",
    );
    assert_eq!(std::fs::read_to_string(&path).unwrap(), kept);
    let same = ["audit", "--csv", &path, "--html", &path];
    let output = before(&sim, &same).await;
    assert_eq!(code(&output), 2);
    says(&err(&output), "--html and --csv name the same file");
}
