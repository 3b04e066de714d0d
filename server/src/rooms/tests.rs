//! Rooms without a network: slots follow from seed and moves, what is kept brings a room back, nobody who is slow misses a
//! decision.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use client::protocol::rooms::down::ServerMessage;
use client::protocol::rooms::rest::SlotRecord;
use client::protocol::rooms::settings::{CompareRequest, MOST_CELL_MEMBERS};
use client::protocol::rooms::up::{Answer, Command, Join, MeasuredQuality, Place, Telemetry};
use client::protocol::rooms::{CloseReason, Part, Presence, RoomSettings};
use client::protocol::world::Decider;

use super::deciders::Deciders;
use super::finish::Around;
use super::numbers::{ServerNow, room_numbers};
use super::outbox::Next;
use super::room::{Room, Shared, kept, restored};
use super::secrets;
use super::state::{Effect, MEMBERS, State};
use super::store::{KeptRoom, Store};

fn deciders() -> Deciders {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../public/policies/set.safetensors");
    Deciders::with_policy(&std::fs::read(path).unwrap()).unwrap()
}

fn state(seed: u64) -> State {
    State::new("BCDFGH".to_owned(), seed, RoomSettings { cell_members: 4, ..RoomSettings::default() })
}

fn token(n: u8) -> [u8; 32] {
    [n; 32]
}

fn enter(state: &mut State, n: u8) -> u32 {
    let mlu = state.admit(Some(token(n)), "", Part::Model).unwrap();
    state.members.get_mut(&mlu).unwrap().connected = true;
    mlu
}

fn slot(state: &mut State, deciders: &Deciders) -> SlotRecord {
    let decided = state.begin().decide(deciders);
    state.finish(&decided, Around::default()).1.expect("somebody takes part")
}

/// What the members do before a slot.
fn moves(state: &mut State, at: u64) {
    match at {
        0 => {
            for n in 0..6 {
                enter(state, n);
            }
        }
        3 => state.placed(2, Place { x_m: 5.0, y_m: -3.0 }),
        5 => drop(state.lose(4)),
        7 => {
            enter(state, 7);
        }
        9 => state.come_back(4, None).unwrap(),
        11 => {
            let values = [("bandwidth_hz".to_owned(), 3e6)].into();
            drop(state.command(Command::Settings(RoomSettings { values, ..state.settings.clone() })).unwrap());
        }
        13 => drop(state.command(Command::Move { mlu: 1, cell: 2 }).unwrap()),
        15 => drop(state.command(Command::Mute { mlu: 3, muted: true }).unwrap()),
        _ => {}
    }
}

fn play(seed: u64, slots: std::ops::Range<u64>, state: Option<State>) -> (State, Vec<SlotRecord>) {
    let deciders = deciders();
    let mut state = state.unwrap_or_else(|| self::state(seed));
    let records = slots
        .map(|at| {
            moves(&mut state, at);
            slot(&mut state, &deciders)
        })
        .collect();
    (state, records)
}

#[test]
fn the_same_seed_and_the_same_moves_give_the_same_slots() {
    let (_, first) = play(7, 0..20, None);
    assert_eq!(first, play(7, 0..20, None).1);
    let (_, other) = play(8, 0..20, None);
    assert!(first.iter().zip(&other).all(|(a, b)| a != b));
    let presence = |at: usize, mlu: u32| {
        let mut all = first[at].cells.iter().flat_map(|cell| &cell.mlus);
        all.find(|one| one.mlu == mlu).map(|one| (one.presence, one.alpha, one.rate_bps))
    };
    assert_eq!(presence(5, 4), Some((Presence::Away, 0.0, 0.0)));
    assert_eq!(presence(9, 4).unwrap().0, Presence::Active);
    assert_eq!(presence(15, 3), Some((Presence::Muted, 0.0, 0.0)));
    assert!(first[13].cells[1].mlus.iter().any(|one| one.mlu == 1), "it moved to the second cell");
}

#[test]
fn who_else_is_there_never_changes_a_members_channel() {
    let channel = |guests: u8| {
        let (mut state, deciders) = (state(3), deciders());
        enter(&mut state, 0);
        for n in 1..=guests {
            enter(&mut state, n);
        }
        let own = |record: SlotRecord| record.cells[0].mlus[0];
        (0..8)
            .map(|_| own(slot(&mut state, &deciders)))
            .map(|one| (one.x_m, one.gain, one.size_bits))
            .collect::<Vec<_>>()
    };
    assert_eq!(channel(0), channel(9));
}

#[test]
fn the_largest_cell_is_one_cell_and_the_policy_decides_for_all_of_it() {
    let deciders = deciders();
    let reward = |decider| {
        let settings = RoomSettings { cell_members: MOST_CELL_MEMBERS, decider, ..RoomSettings::default() };
        let mut state = State::new("BCDFGH".to_owned(), 5, settings);
        state.command(Command::Rehearse { phones: MOST_CELL_MEMBERS as u32 + 1 }).unwrap();
        let rewards = (0..20).map(|_| {
            let record = slot(&mut state, &deciders);
            assert_eq!(record.decider, decider);
            let sizes: Vec<usize> = record.cells.iter().map(|cell| cell.mlus.len()).collect();
            assert_eq!(sizes, [MOST_CELL_MEMBERS, 1]);
            record.cells[0].reward
        });
        rewards.sum::<f64>()
    };
    let (policy, closed_form) = (reward(Decider::Policy), reward(Decider::ClosedForm));
    assert!(policy > closed_form, "{policy} {closed_form}");
}

#[test]
fn who_is_away_muted_or_in_another_cell_interferes_no_more() {
    let deciders = deciders();
    // By hand all send all at full power, so that only interference tells the rates apart.
    let rate = |change: fn(&mut State)| {
        let settings =
            RoomSettings { decider: Decider::Manual, manual_alpha: 1.0, manual_power: 1.0, ..RoomSettings::default() };
        let mut state = State::new("BCDFGH".to_owned(), 3, settings);
        for n in 1..=3 {
            enter(&mut state, n);
        }
        change(&mut state);
        slot(&mut state, &deciders).cells[0].mlus[0].rate_bps
    };
    let (three, two) = (rate(|_| {}), rate(|state| drop(state.lose(3))));
    let alone = rate(|state| {
        state.lose(2);
        state.lose(3);
    });
    assert!(three < two && two < alone, "{three} {two} {alone}");
    let hidden = |state: &mut State| {
        state.measured(3, Telemetry { visible: Some(false), ..Telemetry::default() });
    };
    assert_eq!(rate(hidden), two);
    assert_eq!(rate(|state| drop(state.command(Command::Mute { mlu: 3, muted: true }).unwrap())), two);
    assert_eq!(rate(|state| drop(state.command(Command::Move { mlu: 3, cell: 2 }).unwrap())), two);
    assert_eq!(rate(|state| drop(state.leave(3))), two);
}

#[test]
fn a_move_while_a_slot_is_decided_counts_for_the_next() {
    let deciders = deciders();
    let run = |early: bool| {
        let mut state = state(5);
        for n in 0..3 {
            enter(&mut state, n);
        }
        let plan = state.begin();
        if early {
            enter(&mut state, 9);
        }
        let decided = plan.decide(&deciders);
        let (_, first) = state.finish(&decided, Around::default());
        if !early {
            enter(&mut state, 9);
        }
        (first, slot(&mut state, &deciders))
    };
    assert_eq!(run(true), run(false));
    // And a room that began anew meanwhile takes no slot of before.
    let mut state = state(5);
    enter(&mut state, 0);
    let decided = state.begin().decide(&deciders);
    state.command(Command::Restart { seed: 6 }).unwrap();
    assert_eq!(state.finish(&decided, Around::default()), (Vec::new(), None));
    assert_eq!((state.slot, slot(&mut state, &deciders).slot), (0, 0));
}

#[test]
fn what_is_kept_brings_the_room_back_to_the_last_bit() {
    let (_, whole) = play(7, 0..20, None);
    let (before, mut records) = play(7, 0..10, None);
    let kept_room = KeptRoom {
        code: before.code.clone(),
        secret: token(0),
        used_ms: 0,
        kept: serde_json::from_str(&kept(&before)).unwrap(),
        members: before.members.values().map(|member| member.identity.clone()).collect(),
    };
    let mut after = restored(kept_room);
    assert!(after.members.values().all(|member| member.presence() == Some(Presence::Away)));
    for mlu in before.members.keys() {
        after.come_back(*mlu, None).unwrap();
    }
    records.extend(play(7, 10..20, Some(after)).1);
    assert_eq!(records, whole);
}

#[test]
fn seats_are_kept_for_a_while_and_members_for_longer() {
    let mut state = state(1);
    let (first, second) = (enter(&mut state, 1), enter(&mut state, 2));
    state.placed(first, Place { x_m: 3.0, y_m: 4.0 });
    state.named(first, "Ada");
    state.lose(first);
    assert_eq!(state.pass(59.0), []);
    assert_eq!(state.members[&first].presence(), Some(Presence::Away));
    assert_eq!(state.pass(2.0), [Effect::Presenters(ServerMessage::Gone { mlu: first })]);
    assert_eq!((state.members[&first].presence(), state.seated().count()), (None, 1));
    let known = state.by_token(&token(1)).unwrap().identity.mlu;
    state.come_back(known, None).unwrap();
    let back = &state.members[&first];
    assert_eq!((back.identity.name.as_str(), back.identity.cell, back.progress.radio.x_m), ("Ada", Some(1), 3.0));
    // A page out of sight interferes no more, but keeps its seat while it is connected.
    let hidden = Telemetry { visible: Some(false), ..Telemetry::default() };
    assert_eq!(state.measured(second, hidden).len(), 1, "the presenters hear of it");
    assert_eq!((state.members[&second].presence(), state.pass(1000.0).len()), (Some(Presence::Away), 0));
    state.measured(second, Telemetry { visible: Some(true), tokens_per_s: Some(-1.0), ..Telemetry::default() });
    assert_eq!(
        (state.members[&second].presence(), state.members[&second].tokens_per_s()),
        (Some(Presence::Active), 0.0)
    );
    assert_eq!(state.come_back(99, None), Err(CloseReason::UnknownToken));
}

#[test]
fn a_room_holds_so_many_and_remembers_so_many() {
    let mut state = State::new("BCDFGH".to_owned(), 1, RoomSettings::default());
    state.command(Command::Rehearse { phones: MEMBERS as u32 }).unwrap();
    assert_eq!((state.seated().count(), state.cells().last()), (MEMBERS, MEMBERS as u32 / 10));
    assert_eq!(state.admit(Some(token(1)), "", Part::Model), Err(CloseReason::Full));
    assert!(state.command(Command::Rehearse { phones: MEMBERS as u32 + 1 }).unwrap_err().contains("500"));
    state.command(Command::Rehearse { phones: 3 }).unwrap();
    assert_eq!((state.seated().count(), state.members.len()), (3, 3));
    for _ in 0..2100 {
        let mlu = state.admit(Some(token(1)), "", Part::Model).unwrap();
        state.leave(mlu);
    }
    assert_eq!(state.members.len(), 2000);
    assert!(state.members.keys().take(3).eq([1, 2, 3].iter()), "those that have a seat stay");
}

/// Strangers who come and go are forgotten before a member that took part, also when the room began anew since, or its server.
#[test]
fn who_took_part_before_a_restart_is_no_stranger() {
    let deciders = deciders();
    let mut state = state(1);
    let (gone, stays) = (enter(&mut state, 1), enter(&mut state, 2));
    slot(&mut state, &deciders);
    state.leave(gone);
    for seed in [5, 6] {
        state.command(Command::Restart { seed }).unwrap();
        assert_eq!(state.members[&gone].progress.slots, 0, "it is counted anew");
    }
    let text = kept(&state);
    let members = state.members.values().map(|member| member.identity.clone()).collect();
    let kept = serde_json::from_str(&text).unwrap();
    let mut state = restored(KeptRoom { code: "BCDFGH".into(), secret: token(0), used_ms: 0, kept, members });
    for _ in 0..2100 {
        let mlu = state.admit(Some(token(9)), "", Part::Model).unwrap();
        state.leave(mlu);
    }
    assert_eq!(state.by_token(&token(1)).map(|member| member.identity.mlu), Some(gone));
    assert!(state.members.contains_key(&stays) && state.members.len() == 2000);
}

#[test]
fn a_presenter_steers_and_hears_why_not() {
    let mut state = state(1);
    for n in 0..5 {
        enter(&mut state, n);
    }
    for (command, says) in [
        (Command::Rename { mlu: 99, name: "x".to_owned() }, "no MLU 99"),
        (Command::Move { mlu: 1, cell: 4 }, "no cell 4"),
        (Command::Move { mlu: 1, cell: 0 }, "no cell 0"),
        (Command::Move { mlu: 5, cell: 1 }, "full"),
        (Command::EndRound, "No round"),
        (Command::EndCompare, "Nothing"),
        (Command::StartRound { questions: vec![], seconds: 1 }, "5 to 600"),
        (Command::Settings(RoomSettings { period_s: 9.0, ..RoomSettings::default() }), "slot period"),
        (Command::Compare(CompareRequest { deciders: vec![], turn_slots: 1 }), "two to six"),
    ] {
        let before = format!("{state:?}");
        let error = state.command(command).expect_err(says);
        assert!(error.contains(says), "{error}");
        assert_eq!(format!("{state:?}"), before, "nothing has changed");
    }
    let told = state.command(Command::Rename { mlu: 2, name: "Bob\u{202e}".to_owned() }).unwrap();
    assert_eq!(told.len(), 2, "it and the presenters: {told:?}");
    assert_eq!(state.members[&2].identity.name, "Bob");
    state.command(Command::Move { mlu: 5, cell: 3 }).unwrap();
    let told = state.command(Command::Remove { mlu: 2 }).unwrap();
    assert!(told.contains(&Effect::Cut(2, CloseReason::Removed)));
    assert_eq!(state.come_back(2, None), Err(CloseReason::Removed));
    // Smaller cells move whoever no longer fits.
    state.command(Command::Settings(RoomSettings { cell_members: 1, ..RoomSettings::default() })).unwrap();
    assert!((1..=4).all(|cell| state.cells().taken(cell) == 1), "{:?}", state.cells());
}

#[test]
fn rounds_and_comparisons_run_beside_the_slots() {
    let (mut state, deciders) = (state(2), deciders());
    let phones: Vec<u32> = (0..3).map(|n| enter(&mut state, n)).collect();
    state.command(Command::Rehearse { phones: 2 }).unwrap();
    let told = state.command(Command::StartRound { questions: vec!["Who?".to_owned()], seconds: 10 }).unwrap();
    let [Effect::All(ServerMessage::Round(round))] = told.as_slice() else { panic!("{told:?}") };
    assert_eq!((round.asked, round.open, round.question_of(7)), (3, true, Some("Who?")));
    let answer = |device_tokens| Answer {
        round: Some(1),
        device_tokens,
        latency_s: 2.0,
        text: "x".repeat(5000),
        ..Answer::default()
    };
    assert_eq!(state.answered(phones[0], answer(5)).len(), 2);
    state.answered(phones[1], answer(6));
    state.pass(11.0);
    state.answered(phones[2], answer(7));
    let round = state.round.as_ref().unwrap().view();
    assert_eq!((round.answered, round.device_tokens, round.open), (2, 11, false), "the third came too late");
    assert_eq!((state.totals.answers, state.totals.device_tokens), (3, 18));

    // Quality counts where the room asks for it, once an answer, and only what can be.
    let quality = |accuracy, hallucination| MeasuredQuality { accuracy, hallucination };
    state.compared(phones[0], quality(0.5, 0.5));
    assert_eq!(state.totals.qualities, 0, "nobody asked");
    state.command(Command::Settings(RoomSettings { measure: true, ..state.settings.clone() })).unwrap();
    for (mlu, told) in [
        (phones[0], quality(f64::NAN, 0.0)),
        (phones[0], quality(0.5, 1.5)),
        (phones[0], quality(0.8, 0.1)),
        (phones[0], quality(0.8, 0.1)),
        (phones[1], quality(0.6, 0.3)),
        (999, quality(0.1, 0.1)),
    ] {
        state.compared(mlu, told);
    }
    let numbers = room_numbers(&[], &state.totals, ServerNow::default());
    let near = |value: Option<f64>, wanted: f64| value.is_some_and(|value| (value - wanted).abs() < 1e-12);
    assert!(numbers.qualities == 2 && near(numbers.measured_accuracy, 0.7), "{numbers:?}");
    assert!(near(numbers.measured_hallucination, 0.2), "{numbers:?}");
    // What the server wrote alone is its own reference: it counts, and the presenter is told of how many that is so.
    assert_eq!(numbers.own_references, 0);
    state.answered(phones[0], Answer { server_tokens: 9, ..Answer::default() });
    state.compared(phones[0], quality(1.0, 0.0));
    let numbers = room_numbers(&[], &state.totals, ServerNow::default());
    assert_eq!((numbers.qualities, numbers.own_references), (3, 1));

    let request = CompareRequest { deciders: vec![Decider::Policy, Decider::AlwaysLocal], turn_slots: 2 };
    state.command(Command::Compare(request)).unwrap();
    let decided: Vec<Decider> = (0..12).map(|_| slot(&mut state, &deciders).decider).collect();
    assert_eq!(
        decided[..5],
        [Decider::Policy, Decider::Policy, Decider::AlwaysLocal, Decider::AlwaysLocal, Decider::Policy]
    );
    let view = state.compare.as_ref().unwrap().view();
    let less = view.arms[1].latency_less_s.expect("three cycles");
    assert!(view.cycles == 3 && less.low <= less.mean && less.mean <= less.high, "{view:?}");
    assert!(view.arms[1].latency_s > view.arms[0].latency_s, "all on the device is slower: {view:?}");
    state.command(Command::EndCompare).unwrap();
    assert_eq!(slot(&mut state, &deciders).decider, state.settings.decider);
}

#[test]
fn a_phone_without_a_model_sends_all() {
    let (mut state, deciders) = (state(2), deciders());
    let mlu = enter(&mut state, 1);
    enter(&mut state, 2);
    state.plays(mlu, Part::ServerOnly);
    state.command(Command::Settings(RoomSettings { decider: Decider::AlwaysLocal, ..state.settings.clone() })).unwrap();
    let record = slot(&mut state, &deciders);
    assert_eq!((record.cells[0].mlus[0].alpha, record.cells[0].mlus[1].alpha), (1.0, 0.0));
    assert!(record.cells[0].mlus[0].latency_s < 5.0);
}

/// A room on a disk of its own, without a clock: tests let its slots pass.
fn room(folder: &std::path::Path) -> Arc<Room> {
    let store = Store::open(folder).unwrap();
    let state = State::new("BCDFGH".to_owned(), 4, RoomSettings::default());
    store.insert("BCDFGH", &secrets::hash("secret"), 0, &kept(&state)).unwrap();
    let server = Box::new(ServerNow::default);
    let shared = Shared { store: Mutex::new(Some(store)), deciders: deciders(), server };
    Arc::new(Room::new(state, secrets::hash("secret"), 0, Arc::new(shared)))
}

fn taken(outbox: &super::outbox::Outbox) -> Vec<ServerMessage> {
    let mut all = Vec::new();
    while let Some(Next::Text(text)) = futures::FutureExt::now_or_never(outbox.next()) {
        all.push(serde_json::from_str(&text).unwrap());
    }
    all
}

#[test]
fn a_slow_reader_has_no_backlog_of_pictures_and_every_decision() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let slow = room.join(Join::phone(None, None, None)).unwrap();
    let presenter = room.join(Join::presenter("secret".to_owned())).unwrap();
    assert_eq!(room.join(Join::presenter("guess".to_owned())).unwrap_err(), CloseReason::Forbidden);
    for _ in 0..50 {
        assert_eq!(room.tick(Instant::now()), Duration::from_secs(1));
    }
    let got = taken(&slow.outbox);
    let decisions: Vec<u64> =
        got.iter().filter_map(|m| if let ServerMessage::Decision(d) = m { Some(d.slot) } else { None }).collect();
    assert!(decisions.iter().copied().eq(0..50), "{decisions:?}");
    let pictures = got.iter().filter(|message| matches!(message, ServerMessage::Picture(_))).count();
    assert_eq!((pictures, slow.outbox.dropped()), (1, 49));
    assert_eq!(taken(&presenter.outbox).iter().filter(|m| matches!(m, ServerMessage::Picture(_))).count(), 1);
    // It has caught up: a snapshot makes good what it missed, then pictures go on.
    room.tick(Instant::now());
    let got = taken(&slow.outbox);
    let [ServerMessage::Decision(_), ServerMessage::Snapshot(snapshot)] = got.as_slice() else { panic!("{got:?}") };
    assert_eq!((snapshot.picture.slot, snapshot.decision.as_ref().map(|d| d.slot)), (50, Some(50)));
    room.tick(Instant::now());
    assert!(matches!(taken(&slow.outbox)[..], [ServerMessage::Decision(_), ServerMessage::Picture(_)]));
    // One that never reads is told to come back.
    for _ in 0..300 {
        room.tick(Instant::now());
    }
    let last = futures::FutureExt::now_or_never(slow.outbox.next());
    assert_eq!(last, Some(Next::Close(CloseReason::TooSlow)));
}

#[test]
fn what_changed_between_two_slots_survives_a_power_cut() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let phone = room.join(Join::phone(None, None, None)).unwrap().mlu.unwrap();
    room.tick(Instant::now());
    room.make(|state| state.command(Command::StartRound { questions: Vec::new(), seconds: 60 }).unwrap());
    room.make(|state| {
        state.placed(phone, Place { x_m: 3.0, y_m: 4.0 });
        let answer = Answer { device_tokens: 5, text: "forty-two".into(), round: Some(1), ..Answer::default() };
        let told = state.answered(phone, answer);
        told.into_iter().chain(state.plays(phone, Part::ServerOnly)).collect()
    });
    room.flush();
    // Nothing is closed in order: the next server reads what is on disk.
    drop(room);
    let read = Store::open(folder.path()).unwrap().rooms().unwrap().pop().unwrap();
    let state = restored(read);
    let member = &state.members[&phone];
    assert_eq!((member.progress.radio.x_m, member.progress.answers, member.identity.part), (3.0, 1, Part::ServerOnly));
    assert_eq!((state.totals.device_tokens, state.slot), (5, 1));
    // An answer is written once, not with all else in every slot.
    assert_eq!(state.round.as_ref().unwrap().answers[&phone].text, "forty-two");
    assert!(!kept(&state).contains("forty-two"));
}

/// A room that began anew counts its rounds anew: answers to its first round of before are none to this one.
#[test]
fn answers_of_before_a_new_beginning_are_forgotten() {
    let folder = tempfile::tempdir().unwrap();
    let room = room(folder.path());
    let phones = [0, 1].map(|_| room.join(Join::phone(None, None, None)).unwrap().mlu.unwrap());
    let command = |command| room.make(|state| state.command(command).unwrap());
    let answer = |mlu, text: &str| {
        let answer = Answer { text: text.into(), round: Some(1), ..Answer::default() };
        room.make(|state| state.answered(mlu, answer));
        room.flush();
    };
    command(Command::StartRound { questions: Vec::new(), seconds: 60 });
    answer(phones[0], "before");
    command(Command::Restart { seed: 7 });
    command(Command::StartRound { questions: Vec::new(), seconds: 60 });
    answer(phones[1], "after");
    drop(room);
    let read = Store::open(folder.path()).unwrap().rooms().unwrap().pop().unwrap();
    let answers = restored(read).round.unwrap().answers;
    assert!(answers.keys().eq([&phones[1]]), "{answers:?}");
}

/// A room that is closed while a slot is decided has no more searched for it.
#[test]
fn a_closed_room_does_not_search() {
    let deciders = deciders();
    let mut state = state(3);
    for n in 0..9 {
        enter(&mut state, n);
    }
    state.settings.decider = Decider::Oracle;
    let alphas = |gone: bool| -> Vec<f64> {
        let decided = state.clone().begin().decide_unless(&deciders, &|| gone);
        let seats = decided.cells.iter().flat_map(|cell| &cell.seats);
        seats.flatten().map(|(decision, _)| decision.alpha).collect()
    };
    assert_eq!(alphas(true), [0.0; 9]);
    assert!(alphas(false).iter().any(|alpha| *alpha > 0.0));
}

/// What phones measure, and how many answers they have, is told to presenters within a second, in turn where there are many.
#[test]
fn presenters_are_told_of_measurements_in_turn() {
    let mut state = State::new("BCDFGH".to_owned(), 6, RoomSettings::default());
    let members: Vec<u32> = (0..100).map(|n| enter(&mut state, n)).collect();
    let told = |effects: &[Effect]| -> Vec<u32> {
        let member = |effect: &Effect| match effect {
            Effect::Presenters(ServerMessage::Member(view)) => Some(view.mlu),
            _ => None,
        };
        effects.iter().filter_map(member).collect()
    };
    let battery = |level| Telemetry { battery: Some(level), ..Telemetry::default() };
    for mlu in &members {
        assert_eq!(told(&state.measured(*mlu, battery(0.5))), Vec::<u32>::new());
    }
    assert!(told(&state.pass(0.5)).is_empty());
    let first = told(&state.pass(0.5));
    // Those who were told of go to the end of the line.
    state.measured(first[0], battery(0.4));
    let second = told(&state.pass(1.0));
    assert_eq!((first.len(), second.len(), second.last()), (64, 37, first.first()));
    let mut all = [&first[..], &second[..36]].concat();
    all.sort_unstable();
    assert_eq!(all, members);
    assert!(told(&state.pass(1.0)).is_empty());
}
