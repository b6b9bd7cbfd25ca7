//! The monitor's screens, kept; and what must hold for every screen, whatever its size.
//!
//! The cluster is a fixed script of news. `ICE_BLESS=1 cargo test --test monitor` writes the screens
//! down anew; a change of them is then seen in review.

use std::path::Path;
use std::time::Duration;

use ice::id::{NodeId, Time};
use ice::message::{Failure, Usage};
use ice::monitor::demo::Demo;
use ice::monitor::json::{EVENTS, JsonLines, OUTCOMES};
use ice::monitor::model::{Event, Model};
use ice::monitor::theme::Theme;
use ice::monitor::ui::{Ui, View};
use ice::monitor::views;
use ice::news::{Ending, JobNumber, News, NodePicture, Snapshot, Totals};
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{KeyCode, KeyEvent};
use ratatui::style::Color;

const PLAIN: Theme = Theme {
    has_colors: false,
    has_unicode: true,
};

#[test]
fn the_screens_are_those_that_were_agreed() {
    let mut differ = Vec::new();
    for (columns, rows) in [(80, 24), (120, 40)] {
        for (name, keys) in [
            ("list", "jj"),
            ("star", "2"),
            ("gantt", "3jjj"),
            ("summary", "4"),
            ("flow", "5"),
            ("jobs", "6"),
            ("detail", "jj\n"),
            ("help", "?"),
            ("filter", "/an\n"),
        ] {
            let (screen, _) = screen(&cluster(), keys, PLAIN, columns, rows);
            let name = format!("tests/golden/monitor/{name}-{columns}x{rows}.txt");
            let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&name);
            if std::env::var_os("ICE_BLESS").is_some() {
                std::fs::create_dir_all(path.parent().unwrap()).unwrap();
                std::fs::write(&path, &screen).unwrap();
            }
            let agreed = std::fs::read_to_string(&path).unwrap_or_default();
            if agreed != screen {
                differ.push(format!("{name} is now:\n{screen}"));
            }
        }
    }
    assert!(differ.is_empty(), "{}", differ.join("\n"));
}

#[test]
fn a_lost_scheduler_is_said_on_every_screen() {
    let mut model = cluster();
    model.on_event(Event::Lost("nobody answers".into()), Time(31_000_000));
    model.on_event(Event::Tick, Time(34_000_000));
    for keys in ["1", "2", "3", "4", "5", "6"] {
        let (screen, _) = screen(&model, keys, PLAIN, 80, 24);
        assert!(screen.contains("no scheduler for 3.00s"), "{screen}");
        assert!(screen.contains("nobody answers"), "{screen}");
    }
}

#[test]
fn without_colours_no_cell_has_one() {
    for_all_screens(PLAIN, |name, buffer| {
        for cell in buffer.content() {
            let none = (cell.fg, cell.bg) == (Color::Reset, Color::Reset);
            assert!(none, "{name}: {cell:?}");
        }
    });
}

#[test]
fn only_the_sixteen_named_colours_are_used_and_no_background() {
    let theme = Theme {
        has_colors: true,
        has_unicode: true,
    };
    let mut colors = 0;
    for_all_screens(theme, |name, buffer| {
        for cell in buffer.content() {
            let is_named = !matches!(cell.fg, Color::Rgb(..) | Color::Indexed(_));
            assert!(is_named && cell.bg == Color::Reset, "{name}: {cell:?}");
            colors += usize::from(cell.fg != Color::Reset);
        }
    });
    assert!(colors > 0);
}

#[test]
fn a_terminal_that_knows_only_ascii_gets_only_ascii() {
    let theme = Theme {
        has_colors: true,
        has_unicode: false,
    };
    for_all_screens(theme, |name, buffer| {
        for cell in buffer.content() {
            assert!(cell.symbol().is_ascii(), "{name}: {:?}", cell.symbol());
        }
    });
}

#[test]
fn any_size_can_be_drawn() {
    let mut many = Model::default();
    let mut demo = Demo::new(3, 300, Duration::from_secs(1));
    many.on_event(Event::Snapshot(demo.snapshot()), Time(0));
    for second in 1..5 {
        let now = Time(second * 1_000_000);
        let news = demo.advance(now);
        many.on_event(Event::News { skipped: 0, news }, now);
    }
    let small = cluster();
    let empty = Model::default();
    for model in [&empty, &small, &many] {
        for (columns, rows) in [
            (1, 1),
            (59, 24),
            (60, 12),
            (61, 13),
            (80, 24),
            (132, 43),
            (200, 60),
            (400, 100),
            (60, 120),
            (500, 12),
        ] {
            for keys in ["1G", "2j", "3Gh", "4", "5G", "6G", "1j\n", "?"] {
                screen(model, keys, PLAIN, columns, rows);
            }
        }
    }
}

#[test]
fn the_list_as_text_has_every_node() {
    let text = views::list::plain(&cluster(), PLAIN);
    let mut lines = text.lines();
    let count = |is: fn(&News) -> bool| script().iter().filter(|(_, news)| is(news)).count();
    let begun = count(|news| matches!(news, News::Started { .. }));
    // Two of those that ended had not begun.
    let ended = count(|news| matches!(news, News::Ended { .. })) - 2;
    let busy = begun - ended;
    let head = format!("ICE: 6 nodes, {busy}/44 slots in use, 2 waiting");
    assert_eq!(lines.next(), Some(&*head));
    assert!(busy > 3, "{busy}");
    assert_eq!(
        lines.next().map(|line| line.starts_with("NAME")),
        Some(true)
    );
    let names: Vec<&str> = lines.filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(
        names,
        ["anvil", "basalt", "cedar", "desk", "laptop", "quarry"]
    );
}

#[test]
fn every_line_of_json_is_an_object_of_a_known_kind() {
    let mut lines = JsonLines::default();
    let mut text = String::new();
    let mut say = |event| text.push_str(&lines.lines(&event, 1_500));
    say(Event::Lost("nobody answers".into()));
    say(Event::Found("10.0.0.9:8765".into()));
    say(Event::Snapshot(snapshot()));
    for (_, news) in script() {
        let skipped = 2;
        let news = vec![news];
        say(Event::News { skipped, news });
    }
    let node = NodeId(6);
    say(Event::News {
        skipped: 0,
        news: vec![News::Left { node }],
    });
    let values: Vec<serde_json::Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut events: Vec<&str> = Vec::new();
    for value in &values {
        assert_eq!(value["time"], 1.5);
        let event = value["event"].as_str().unwrap();
        assert!(EVENTS.contains(&event), "{value}");
        if event == "ended" {
            let outcome = value["outcome"].as_str().unwrap();
            assert!(OUTCOMES.contains(&outcome), "{value}");
        }
        events.push(event);
    }
    for event in EVENTS {
        assert!(events.contains(&event), "{event} was not written");
    }
    let started = values.iter().find(|value| value["event"] == "started");
    let started = started.unwrap();
    assert_eq!(started["submitter"], "laptop");
    assert_eq!(started["worker"], "anvil");
    assert_eq!(values[2]["nodes"][0]["name"], "anvil");
    assert_eq!(values[2]["totals"]["local"]["link"], 12);
}

#[test]
fn the_manual_knows_every_key_of_the_json_and_every_word() {
    let manual = Path::new(env!("CARGO_MANIFEST_DIR")).join("man/ice-monitor.1");
    let manual = std::fs::read_to_string(manual).unwrap();
    let mut lines = JsonLines::default();
    let mut keys: Vec<String> = EVENTS
        .iter()
        .chain(&OUTCOMES)
        .map(|w| w.to_string())
        .collect();
    let mut events = vec![
        Event::Lost("why".into()),
        Event::Found("a".into()),
        Event::Snapshot(snapshot()),
    ];
    events.extend(script().into_iter().map(|(_, news)| Event::News {
        skipped: 1,
        news: vec![news],
    }));
    for event in events {
        for line in lines.lines(&event, 0).lines() {
            collect_keys(&serde_json::from_str(line).unwrap(), &mut keys);
        }
    }
    keys.sort();
    keys.dedup();
    for key in keys {
        let said = manual
            .split(|c: char| !(c.is_alphanumeric() || c == '_'))
            .any(|word| word == key);
        assert!(said, "ice-monitor(1) says nothing of {key}");
    }
}

fn collect_keys(value: &serde_json::Value, keys: &mut Vec<String>) {
    match value {
        serde_json::Value::Object(object) => {
            for (key, value) in object {
                keys.push(key.clone());
                // The keys below it are reasons.
                if key != "local" {
                    collect_keys(value, keys);
                }
            }
        }
        serde_json::Value::Array(values) => {
            values.iter().for_each(|value| collect_keys(value, keys));
        }
        _ => {}
    }
}

fn for_all_screens(theme: Theme, mut check: impl FnMut(&str, &Buffer)) {
    for keys in ["1jj", "2j", "3jjh", "4", "5j", "6j", "1jj\n", "?", "/a"] {
        let (_, buffer) = screen(&cluster(), keys, theme, 100, 30);
        check(keys, &buffer);
    }
}

/// What is on the screen after these keys: as text, and as cells.
fn screen(model: &Model, keys: &str, theme: Theme, columns: u16, rows: u16) -> (String, Buffer) {
    let mut terminal = Terminal::new(TestBackend::new(columns, rows)).unwrap();
    let mut ui = Ui::default();
    let mut draw = |ui: &mut Ui| {
        terminal
            .draw(|frame| views::draw(model, ui, theme, frame.area(), frame.buffer_mut()))
            .unwrap();
    };
    draw(&mut ui);
    for key in keys.chars() {
        let code = match key {
            '\n' => KeyCode::Enter,
            key => KeyCode::Char(key),
        };
        ui.on_key(KeyEvent::from(code), model);
        // Keys refer to what was drawn.
        draw(&mut ui);
    }
    let buffer = terminal.backend().buffer().clone();
    let lines = buffer.content().chunks(columns.into()).map(|cells| {
        let line: String = cells.iter().map(|cell| cell.symbol()).collect();
        line.trim_end().to_owned() + "\n"
    });
    (lines.collect(), buffer)
}

fn cluster() -> Model {
    let mut model = Model::default();
    model.on_event(Event::Found("10.0.0.9:8765".into()), Time(0));
    model.on_event(Event::Snapshot(snapshot()), Time(0));
    for (ms, news) in script() {
        let news = vec![news];
        model.on_event(Event::News { skipped: 0, news }, Time(ms * 1000));
    }
    model.on_event(Event::Tick, Time(30_000_000));
    assert_eq!(View::ALL.len(), 6, "each has a screen above");
    model
}

fn node(number: u32, name: &str, slots: u32) -> NodePicture {
    NodePicture {
        node: NodeId(number),
        name: name.into(),
        address: format!("10.0.0.{number}:{}", if slots > 0 { 10245 } else { 0 }),
        platform: "x86_64".into(),
        slots,
        no_remote: None,
        is_blocked: false,
        speed_percent: 80 + 13 * number,
        local_jobs: 0,
        load_milli: 900 * number,
        memory_mib: 3000 * u64::from(number),
        jobs_done: 0,
    }
}

fn snapshot() -> Snapshot {
    let cedar = NodePicture {
        is_blocked: true,
        ..node(3, "cedar", 8)
    };
    let quarry = NodePicture {
        no_remote: Some("no user namespaces".into()),
        ..node(6, "quarry", 32)
    };
    Snapshot {
        netname: "ICE".into(),
        version: "1.2.3".into(),
        uptime_s: 3700,
        nodes: vec![
            node(1, "anvil", 16),
            node(2, "basalt", 24),
            cedar,
            node(4, "desk", 4),
            node(5, "laptop", 0),
            quarry,
        ],
        jobs: vec![],
        jobs_omitted: 0,
        totals: Totals {
            remote: 4000,
            own: 40,
            failed: 2,
            remote_cpu_us: 7_000_000_000,
            output_bytes: 300 << 20,
            local: vec![("link".into(), 12), ("several-inputs".into(), 3)],
        },
    }
}

/// News with their times in milliseconds: two who build, on two who compile.
fn script() -> Vec<(u64, News)> {
    let (anvil, basalt, desk, laptop) = (NodeId(1), NodeId(2), NodeId(4), NodeId(5));
    let mut script = Vec::new();
    for number in 1..=60_u64 {
        let begin = number * 495;
        let submitter = if number % 3 == 0 { desk } else { laptop };
        let worker = match number % 5 {
            0 if submitter == desk => desk,
            1 | 2 => anvil,
            _ => basalt,
        };
        let file = format!("src/module_{}/unit_{number}.cpp", number % 7);
        script.push((
            begin,
            News::Started {
                job: JobNumber(number),
                submitter,
                worker,
                file: file.as_str().into(),
            },
        ));
        let lasts = 1500 + number * 137 % 4000;
        let usage = Usage {
            cpu_us: lasts * 950,
            wall_us: lasts * 1000,
            rss_kib: 100_000 + number * 1000,
            setup_us: 300,
        };
        let ending = match number {
            20 => Ending::Failed {
                failure: Failure::Memory,
                dead: false,
            },
            35 => Ending::Failed {
                failure: Failure::Internal,
                dead: true,
            },
            41 => Ending::Lost,
            50 => Ending::Unused,
            _ if worker == submitter => Ending::Own,
            _ => Ending::Done {
                usage,
                output_bytes: 40_000 + number * 997,
            },
        };
        let job = JobNumber(number);
        script.push((begin + lasts, News::Ended { job, ending }));
        if number % 9 == 4 {
            let reason = ["link", "stdin"][number as usize % 2];
            script.push((
                begin + 10,
                News::Local {
                    node: submitter,
                    reason: reason.into(),
                    jobs: 1 + (number % 2) as u32,
                    file: "build/program".into(),
                },
            ));
        }
    }
    for number in 61..=65_u64 {
        let job = JobNumber(number);
        let file = format!("src/late/unit_{number}.c");
        script.push((
            27_100 + number * 10,
            News::Queued {
                job,
                submitter: laptop,
                file: file.as_str().into(),
            },
        ));
        let ending = match number {
            61 => Ending::Withdrawn,
            62 => Ending::Denied("no node has this toolchain".into()),
            63 => Ending::Own,
            _ => continue,
        };
        if number == 63 {
            script.push((
                28_500,
                News::Started {
                    job,
                    submitter: laptop,
                    worker: laptop,
                    file: file.as_str().into(),
                },
            ));
        }
        script.push((29_000, News::Ended { job, ending }));
    }
    script.push((29_500, News::Node(node(2, "basalt", 24))));
    script.sort_by_key(|(ms, _)| *ms);
    // What is not over by then still runs.
    script.retain(|(ms, _)| *ms < 30_000);
    script
}
