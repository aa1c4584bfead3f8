use std::fs;

use tempfile::TempDir;

use super::*;

/// A folder with pictures `a.jpg`, `b.jpg`, `c.jpg` and `image/7.jpg`.
fn folder() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("image")).unwrap();
    for name in ["a.jpg", "b.jpg", "c.jpg", "image/7.jpg"] {
        fs::write(folder.path().join(name), b"picture").unwrap();
    }
    folder
}

fn read(folder: &TempDir, name: &str, content: &[u8]) -> Result<Data, DataError> {
    let path = folder.path().join(name);
    fs::write(&path, content).unwrap();
    Data::read(&path, None, None)
}

fn exchange(question: &str, answer: &str) -> Exchange {
    let question = (!question.is_empty()).then(|| question.to_owned());
    Exchange { question, answer: answer.to_owned() }
}

#[test]
fn lines_hold_captions_and_questions_beside_their_pictures() {
    let folder = folder();
    let text = "{\"image\": \"a.jpg\", \"caption\": \" a red car \"}\r\n\n\
                {\"image\": \"b.jpg\", \"question\": \"what?\", \"answer\": \"Grün\", \"id\": 1}\n";
    let data = read(&folder, "my.jsonl", text.as_bytes()).unwrap();
    assert_eq!((data.layout, data.size), (Layout::Lines, text.len() as u64));
    assert_eq!(data.blake3, blake3::hash(text.as_bytes()).to_hex().to_string());
    assert_eq!(data.records[0].image, folder.path().join("a.jpg"));
    assert_eq!(data.records[0].exchanges, [exchange("", "a red car")]);
    assert_eq!(data.records[1].exchanges, [exchange("what?", "Grün")]);
    assert_eq!(data.records[1].place, Place::Line(3));
    assert_eq!((data.bad.len(), data.exchanges()), (0, 2));
}

#[test]
fn a_record_with_a_caption_and_a_question_gives_both() {
    let text = br#"{"image": "a.jpg", "caption": "a", "question": "b", "answer": "c"}"#;
    let data = read(&folder(), "x", text).unwrap();
    let all: Vec<_> = data.records.iter().flat_map(|r| r.exchanges.clone()).collect();
    assert_eq!(all, [exchange("", "a"), exchange("b", "c")]);
}

#[test]
fn annotations_find_their_pictures_by_number() {
    let folder = folder();
    let text = br#"{
        "annotations": [{"image_id": "7", "caption": "one"}, {"image_id": 7, "caption": "two"},
                        {"image_id": 8, "caption": "three"}, {"caption": "four"}]
    }"#;
    let data = read(&folder, "filter_cap.json", text).unwrap();
    assert_eq!(data.layout, Layout::Align);
    assert!(data.records.iter().all(|r| r.image == folder.path().join("image/7.jpg")));
    assert_eq!(data.records.len(), 2);
    assert!(data.bad[0].to_string().starts_with("record 3: `"), "{}", data.bad[0]);
    assert_eq!(data.bad[1].to_string(), "record 4: it has no `image_id`");
    // The folder stands for the file in it.
    assert_eq!(Data::read(folder.path(), None, None).unwrap(), data);
    // One line is no JSONL either.
    let line = br#"{"annotations": [{"image_id": "7", "caption": "one"}]}"#;
    assert_eq!(read(&folder, "line.json", line).unwrap().layout, Layout::Align);
}

#[test]
fn conversations_keep_their_turns_and_lose_the_mark_of_the_picture() {
    let text = br#"[
        {"id": "1", "image": "a.jpg", "conversations": [
            {"from": "human", "value": "<image>\nWhat is it?"}, {"from": "gpt", "value": "A car."},
            {"from": "human", "value": "Which colour?"}, {"from": "gpt", "value": "Red."}]},
        {"image": "a.jpg", "conversations": [{"from": "gpt", "value": "A car."}]},
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "hello"}]},
        {"image": "a.jpg", "conversations": [{"from": "human", "value": "<image>"}]},
        {"conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": "b"}]},
        {"image": "b.jpg", "conversations": "none"}
    ]"#;
    let data = read(&folder(), "llava.json", text).unwrap();
    assert_eq!(data.layout, Layout::List);
    assert_eq!(
        data.records[0].exchanges,
        [exchange("What is it?", "A car."), exchange("Which colour?", "Red.")]
    );
    let reasons: Vec<String> = data.bad.iter().map(Bad::to_string).collect();
    assert_eq!(
        reasons,
        [
            "record 2: turn 1 is of `gpt`, out of its place",
            "record 3: its conversation has no answer to the last question",
            "record 4: its turn 1 is empty",
            "record 5: it has no `image`",
            "record 6: `conversations` is text, not a list",
        ]
    );
}

#[test]
fn bad_lines_are_named_and_left_out() {
    let folder = folder();
    let lines = [
        r#"{"image": "a.jpg", "caption": "good"}"#,
        r#"{"image": "a.jpg", "caption": "cut"#,
        r#"{"image": "missing.jpg", "caption": "x"}"#,
        r#"{"image": "image", "caption": "a folder"}"#,
        r#"{"image": "a.jpg", "caption": "  "}"#,
        r#"{"image": "a.jpg", "caption": 7}"#,
        r#"{"image": "a.jpg", "question": "no answer"}"#,
        r#"{"image": "a.jpg"}"#,
        r#"["a.jpg", "x"]"#,
        r#"{"image": "https://example.org/a.jpg", "caption": "x"}"#,
        r#"{"image": "a.jpg", "caption": "ends ### early"}"#,
        r#"{"image": "a.jpg", "question": "<ImageHere>", "answer": "x"}"#,
        r#"{"image": "a.jpg", "caption": "\ud800"}"#,
    ];
    let data = read(&folder, "my.jsonl", lines.join("\n").as_bytes()).unwrap();
    assert_eq!((data.records.len(), data.bad.len()), (1, 12));
    let told: Vec<String> = data.bad.iter().map(Bad::to_string).collect();
    for (told, wanted) in told.iter().zip([
        "line 2: it is no JSON: EOF",
        "line 3: `",
        "line 4: `",
        "line 5: its caption is empty",
        "line 6: `caption` is a number, not text",
        "line 7: it has no `answer`",
        "line 8: it has no `caption`, `question` or `conversations`",
        "line 9: it is a list, not an object",
        "line 10: `https://example.org/a.jpg` is on the web",
        "line 11: its caption holds `###`",
        "line 12: its question holds `<ImageHere>`",
        "line 13: it is no JSON",
    ]) {
        assert!(told.starts_with(wanted), "{told}");
    }
}

#[test]
fn a_file_without_a_good_record_is_an_error_that_names_the_first() {
    let folder = folder();
    let error = read(&folder, "my.jsonl", b"{}\n{\"image\": \"a.jpg\"}\n").unwrap_err();
    let text = error.to_string();
    assert!(text.starts_with("all 2 records of `"), "{text}");
    assert!(text.ends_with("line 1: it has no `image`"), "{text}");
    for (content, wanted) in [
        (&b""[..], "holds no records"),
        (b"[]", "holds no records"),
        (b"image,caption\n", "it begins with 'i'"),
        (b"[{\"image\": ", "it is no JSON list"),
        (b"{\"annotations\": 3}", "its `annotations` are no list"),
    ] {
        let text = read(&folder, "x", content).unwrap_err().to_string();
        assert!(text.contains(wanted), "{text}");
    }
    let missing = Data::read(&folder.path().join("none"), None, None).unwrap_err();
    assert!(matches!(missing, DataError::Io { .. }));
}

#[test]
fn other_encodings_are_read_or_named() {
    let folder = folder();
    let line = "{\"image\": \"a.jpg\", \"caption\": \"Bär\"}\n";
    let units = || line.encode_utf16();
    for bytes in [
        [&[0xef, 0xbb, 0xbf], line.as_bytes()].concat(),
        [0xff, 0xfe].into_iter().chain(units().flat_map(u16::to_le_bytes)).collect(),
        [0xfe, 0xff].into_iter().chain(units().flat_map(u16::to_be_bytes)).collect(),
    ] {
        let data = read(&folder, "x", &bytes).unwrap();
        assert_eq!(data.records[0].exchanges, [exchange("", "Bär")]);
    }
    let latin = b"{\"image\": \"a.jpg\", \"caption\": \"B\xe4r\"}\n";
    let data = read(&folder, "x", &[latin, line.as_bytes()].concat()).unwrap();
    assert_eq!(data.bad[0].to_string(), "line 1: it holds bytes that are not UTF-8");
    assert_eq!(data.records.len(), 1);
    // A replacement character that was really written is a character like any other.
    let written = "{\"image\": \"a.jpg\", \"caption\": \"\u{fffd}\"}";
    assert_eq!(read(&folder, "x", written.as_bytes()).unwrap().bad.len(), 0);
    let odd = read(&folder, "x", &[0xff, 0xfe, 1]).unwrap_err().to_string();
    assert!(odd.contains("odd length"), "{odd}");
}

#[test]
fn a_layout_can_be_forced_and_pictures_can_lie_elsewhere() {
    let folder = folder();
    let path = folder.path().join("x.json");
    fs::write(&path, r#"[{"image": "7.jpg", "caption": "seven"}]"#).unwrap();
    assert!(Data::read(&path, Some(Layout::Lines), None).is_err());
    assert!(Data::read(&path, Some(Layout::Align), None).is_err());
    assert!(Data::read(&path, None, None).is_err());
    let data = Data::read(&path, Some(Layout::List), Some(&folder.path().join("image"))).unwrap();
    assert_eq!(data.records[0].image, folder.path().join("image/7.jpg"));
    for layout in [Layout::Lines, Layout::Align, Layout::List] {
        assert_eq!(layout.to_string().parse::<Layout>().unwrap(), layout);
    }
    assert!("csv".parse::<Layout>().unwrap_err().to_string().contains("jsonl"));
}

#[test]
fn every_epoch_has_an_order_of_its_own_that_the_seed_decides() {
    let first = order(100, 7, 0);
    assert_eq!(first, order(100, 7, 0));
    assert_ne!(first, order(100, 7, 1));
    assert_ne!(first, order(100, 8, 0));
    let mut sorted = first;
    sorted.sort_unstable();
    assert!(sorted.into_iter().eq(0..100));
    assert_eq!(order(0, 1, 1), [0; 0]);
    // Every place is taken equally often: 600 of 6000, deviation 23.
    let mut firsts = [0_u32; 10];
    for epoch in 0..6000 {
        firsts[order(10, 3, epoch)[0] as usize] += 1;
    }
    assert!(firsts.iter().all(|n| (500..700).contains(n)), "{firsts:?}");
}

#[test]
fn pictures_are_held_out_with_all_their_records() {
    let record = |at: usize| Record {
        place: Place::Line(at),
        image: PathBuf::from(format!("{}.jpg", at % 20)),
        exchanges: vec![exchange("", "x")],
    };
    let records = || (0..60).map(record).collect::<Vec<_>>();
    let (learn, held) = hold_out(records(), 0.1, 5);
    assert_eq!((learn.len(), held.len()), (54, 6));
    assert!(learn.iter().all(|l| held.iter().all(|h| h.image != l.image)));
    assert_eq!(hold_out(records(), 0.1, 5), (learn, held.clone()));
    assert_ne!(hold_out(records(), 0.1, 6).1, held);
    assert_eq!(hold_out(records(), 0.0, 5).1, []);
    assert_eq!(hold_out(records(), 1e-9, 5).1.len(), 3);
    assert_eq!(hold_out(records(), 1.0, 5).0.len(), 3);
    assert_eq!(hold_out(vec![record(1)], 0.5, 5).1, []);
}
