//! Members and settings of a room, and the moves that change them.
//!
//! Knows no sockets and no time of its own: callers say how much time has passed, and get what is to be told as [`Effect`]s.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use client::protocol::rooms::down::{Answered, Decision, Picture, ServerMessage};
use client::protocol::rooms::up::{Answer, MeasuredQuality, Place, Telemetry};
use client::protocol::rooms::{CloseReason, NAME_CHARS, Part, RoomSettings, TEXT_CHARS, clean};
use mec::MecParams;
use serde::{Deserialize, Serialize};

use super::cells::Cells;
use super::compare::Compare;
use super::member::{Identity, Member, Progress, sensible, usual_name};
use super::radio::Radio;
use super::rounds::RoundState;
use super::secrets::Hash;
use super::view::{member_view, seat_view};

/// Most members that have a seat.
pub const MEMBERS: usize = 500;
/// Most members that are remembered, those without a seat and those removed too.
const KNOWN: usize = 2000;
/// Answers whose latency is remembered.
const LATENCIES: usize = 100;

/// Something to be told.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// To one member.
    To(u32, ServerMessage),
    /// To all presenters.
    Presenters(ServerMessage),
    /// To everyone.
    All(ServerMessage),
    /// The member's connection ends.
    Cut(u32, CloseReason),
    /// The room began anew: everyone needs a snapshot, and the slots so far are forgotten.
    Restarted,
    /// The room ends.
    Close,
}

/// Members of whom the presenters are told again, in turn and only so many a second: what a hall measures in every slot would
/// fill a presenter's queue.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct News {
    members: BTreeSet<u32>,
    next: u32,
    waited_s: f64,
}

impl News {
    /// Members that are told of in a second at most.
    const A_SECOND: usize = 64;

    /// There is something new of a member.
    pub fn add(&mut self, mlu: u32) {
        self.members.insert(mlu);
    }

    /// Lets time pass; of whom it is told now.
    fn due(&mut self, seconds: f64) -> Vec<u32> {
        self.waited_s += seconds;
        if self.waited_s < 1.0 {
            return Vec::new();
        }
        self.waited_s = 0.0;
        let turn = self.members.range(self.next..).chain(self.members.range(..self.next));
        let due: Vec<u32> = turn.copied().take(Self::A_SECOND).collect();
        for mlu in &due {
            self.members.remove(mlu);
            self.next = mlu.saturating_add(1);
        }
        due
    }
}

/// The room's own counters.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Totals {
    /// Answers that phones reported.
    pub answers: u64,
    /// Tokens that phones wrote of them.
    pub device_tokens: u64,
    /// Tokens that the server wrote of them.
    pub server_tokens: u64,
    /// Answers whose quality was measured.
    #[serde(default)]
    pub qualities: u64,
    /// Of these, answers that the server wrote alone.
    #[serde(default)]
    pub own_references: u64,
    /// Sum of all their accuracies, eq. 28.
    #[serde(default)]
    pub accuracy: f64,
    /// Sum of their hallucination rates, eq. 28.
    #[serde(default)]
    pub hallucination: f64,
    /// Latencies of the last ones, seconds.
    pub latencies: VecDeque<f64>,
}

/// A room without its sockets.
#[derive(Clone, Debug)]
pub struct State {
    /// The room's code.
    pub code: String,
    /// Seed of the slots.
    pub seed: u64,
    /// The settings; always good ones.
    pub settings: RoomSettings,
    /// The parameters that follow from them, without the number of users.
    pub params: MecParams,
    /// The next slot.
    pub slot: u64,
    /// The next newcomer's number.
    pub next_mlu: u32,
    /// All that are known, by number.
    pub members: BTreeMap<u32, Member>,
    /// The round that runs, or the last one.
    pub round: Option<RoundState>,
    /// The comparison that runs, or the last one.
    pub compare: Option<Compare>,
    /// Counters.
    pub totals: Totals,
    /// The last slot, all cells.
    pub picture: Picture,
    /// What was decided in it.
    pub decisions: BTreeMap<u32, Decision>,
    /// Whether a slot has begun and is not carried out yet.
    pub deciding: bool,
    /// How often the room began anew.
    pub epoch: u32,
    /// Members whose identity changed and is not written yet.
    pub changed: BTreeSet<u32>,
    /// Members whose answers to the round are not written yet.
    pub unwritten: BTreeSet<u32>,
    /// Members whose measurements or counts the presenters do not know yet.
    pub news: News,
}

impl State {
    /// An empty room. The settings have to be good ones.
    #[must_use]
    pub fn new(code: String, seed: u64, settings: RoomSettings) -> Self {
        let params = settings.params().unwrap_or_default();
        Self {
            code,
            seed,
            settings,
            params,
            slot: 0,
            next_mlu: 1,
            members: BTreeMap::new(),
            round: None,
            compare: None,
            totals: Totals::default(),
            picture: Picture::default(),
            decisions: BTreeMap::new(),
            deciding: false,
            epoch: 0,
            changed: BTreeSet::new(),
            unwritten: BTreeSet::new(),
            news: News::default(),
        }
    }

    /// The slot in which a move counts that is made now: a slot that is being decided has its inputs already.
    #[must_use]
    pub fn counts_from(&self) -> u64 {
        self.slot + u64::from(self.deciding)
    }

    /// Members that have a seat.
    pub fn seated(&self) -> impl Iterator<Item = &Member> {
        self.members.values().filter(|member| member.identity.cell.is_some())
    }

    /// The seats that are taken.
    #[must_use]
    pub fn cells(&self) -> Cells {
        Cells::count(self.members.values().filter_map(|member| member.identity.cell))
    }

    fn check_free(&self) -> Result<(), CloseReason> {
        if self.seated().count() >= MEMBERS { Err(CloseReason::Full) } else { Ok(()) }
    }

    /// A new member with a seat; its number. `token` is `None` for a simulated one.
    ///
    /// # Errors
    /// The room is full.
    pub fn admit(&mut self, token: Option<Hash>, name: &str, part: Part) -> Result<u32, CloseReason> {
        self.check_free()?;
        self.forget_some();
        let mlu = self.next_mlu;
        self.next_mlu += 1;
        let name = Some(clean(name, NAME_CHARS)).filter(|name| !name.is_empty()).unwrap_or_else(|| usual_name(mlu));
        let cell = Some(self.cells().seat(self.settings.cell_members));
        let identity = Identity { mlu, token, name, part, muted: false, removed: false, cell };
        let radio = Radio::draw(&self.params, self.seed, mlu, self.counts_from());
        let progress = Progress::new(radio);
        self.members.insert(mlu, Member::new(identity, progress));
        self.changed.insert(mlu);
        Ok(mlu)
    }

    /// Makes room for one more that is remembered: whoever has no seat and came first is forgotten, those before all others
    /// that never took part in a slot. Else people who know the code could come and go until the room forgets its members.
    fn forget_some(&mut self) {
        while self.members.len() >= KNOWN {
            let mut gone = self.members.values().filter(|member| member.identity.cell.is_none());
            let stranger = gone.clone().find(|member| !member.progress.has_taken_part() && !member.identity.removed);
            let Some(oldest) = stranger.or_else(|| gone.next()) else { return };
            let mlu = oldest.identity.mlu;
            self.members.remove(&mlu);
            self.changed.insert(mlu);
        }
    }

    /// The member of a token.
    #[must_use]
    pub fn by_token(&self, token: &Hash) -> Option<&Member> {
        self.members.values().find(|member| member.identity.token.as_ref() == Some(token))
    }

    /// A known member is there again, with a seat.
    ///
    /// # Errors
    /// It is not known or was removed, or has lost its seat and the room is full.
    pub fn come_back(&mut self, mlu: u32, part: Option<Part>) -> Result<(), CloseReason> {
        let known = self.members.get(&mlu).ok_or(CloseReason::UnknownToken)?;
        if known.identity.removed {
            return Err(CloseReason::Removed);
        }
        let mut seat = known.identity.cell;
        if seat.is_none() {
            self.check_free()?;
            seat = Some(self.cells().seat(self.settings.cell_members));
        }
        let (slot, seed, params) = (self.counts_from(), self.seed, self.params);
        let member = self.members.get_mut(&mlu).ok_or(CloseReason::UnknownToken)?;
        if member.identity.cell.is_none() {
            // Its channel did not go on without a seat.
            member.progress.radio = member.progress.radio.redrawn(&params, seed, mlu, slot);
            member.progress.last = None;
        }
        member.identity.cell = seat;
        member.identity.part = part.unwrap_or(member.identity.part);
        (member.connected, member.visible, member.away_for_s) = (true, true, 0.0);
        self.changed.insert(mlu);
        Ok(())
    }

    /// A member's connection is gone.
    pub fn lose(&mut self, mlu: u32) -> Vec<Effect> {
        if let Some(member) = self.members.get_mut(&mlu) {
            member.connected = false;
        }
        self.tell_presenters(mlu)
    }

    /// A member's measurements.
    pub fn measured(&mut self, mlu: u32, told: Telemetry) -> Vec<Effect> {
        let Some(member) = self.members.get_mut(&mlu) else { return Vec::new() };
        let before = member.presence();
        member.visible = told.visible.unwrap_or(member.visible);
        let tier_before = member.telemetry.tier;
        member.telemetry = sensible(told);
        if member.visible {
            member.away_for_s = 0.0;
        }
        if member.presence() != before || member.telemetry.tier != tier_before {
            return self.tell_presenters(mlu);
        }
        self.news.add(mlu);
        Vec::new()
    }

    /// A member is dragged.
    pub fn placed(&mut self, mlu: u32, place: Place) {
        let radius_m = self.params.radius_m;
        if let Some(member) = self.members.get_mut(&mlu) {
            member.progress.radio.place(place.x_m, place.y_m, radius_m);
        }
    }

    /// A member is named; an empty name is the usual one.
    pub fn named(&mut self, mlu: u32, name: &str) -> Vec<Effect> {
        self.change(mlu, |identity| {
            let name = clean(name, NAME_CHARS);
            identity.name = if name.is_empty() { usual_name(mlu) } else { name };
        })
    }

    /// A member takes part in another way.
    pub fn plays(&mut self, mlu: u32, part: Part) -> Vec<Effect> {
        self.change(mlu, |identity| identity.part = part)
    }

    /// Changes who a member is, and tells it and the presenters.
    pub fn change(&mut self, mlu: u32, change: impl FnOnce(&mut Identity)) -> Vec<Effect> {
        let Some(member) = self.members.get_mut(&mlu) else { return Vec::new() };
        change(&mut member.identity);
        self.changed.insert(mlu);
        let seat = seat_view(member).map(|seat| Effect::To(mlu, ServerMessage::Seat(seat)));
        seat.into_iter().chain(self.tell_presenters(mlu)).collect()
    }

    /// A member gives its seat up.
    pub fn leave(&mut self, mlu: u32) -> Vec<Effect> {
        if let Some(member) = self.members.get_mut(&mlu) {
            member.identity.cell = None;
            self.decisions.remove(&mlu);
            self.changed.insert(mlu);
        }
        vec![Effect::Presenters(ServerMessage::Gone { mlu })]
    }

    /// A member reports an answer.
    pub fn answered(&mut self, mlu: u32, told: Answer) -> Vec<Effect> {
        let Some(member) = self.members.get_mut(&mlu) else { return Vec::new() };
        if self.round.as_ref().is_some_and(|round| round.has(mlu, &told)) {
            return Vec::new();
        }
        let seconds = |value: f64| if (0.0..=1e5).contains(&value) { value } else { 0.0 };
        let mut answer = Answer {
            question: clean(&told.question, TEXT_CHARS),
            text: clean(&told.text, TEXT_CHARS),
            latency_s: seconds(told.latency_s),
            ttft_s: seconds(told.ttft_s),
            device_tokens: told.device_tokens.min(1 << 20),
            server_tokens: told.server_tokens.min(1 << 20),
            round: told.round,
        };
        if member.identity.muted {
            (answer.question, answer.text) = (String::new(), String::new());
        }
        member.progress.answers += 1;
        member.progress.servers_alone = answer.device_tokens == 0;
        self.totals.answers += 1;
        self.totals.device_tokens += u64::from(answer.device_tokens);
        self.totals.server_tokens += u64::from(answer.server_tokens);
        self.totals.latencies.push_back(answer.latency_s);
        if self.totals.latencies.len() > LATENCIES {
            self.totals.latencies.pop_front();
        }
        let in_time = self.round.as_mut().is_some_and(|round| round.take(mlu, &answer));
        match in_time {
            true => _ = self.unwritten.insert(mlu),
            false => answer.round = None,
        }
        self.news.add(mlu);
        let mut effects = vec![Effect::Presenters(ServerMessage::Answered(Answered { mlu, answer }))];
        if let Some(round) = self.round.as_ref().filter(|_| in_time) {
            effects.push(Effect::Presenters(ServerMessage::Round(round.view())));
        }
        effects
    }

    /// A member has compared its last answer with the full model's. Counts once an answer, and only what can be.
    pub fn compared(&mut self, mlu: u32, quality: MeasuredQuality) {
        let Some(member) = self.members.get_mut(&mlu) else { return };
        let MeasuredQuality { accuracy, hallucination } = quality;
        let can_be = (-1.0..=1.0).contains(&accuracy) && (0.0..=1.0).contains(&hallucination);
        if !self.settings.measure || !can_be || member.progress.qualities >= member.progress.answers {
            return;
        }
        // Those that were not measured are not made up for later.
        member.progress.qualities = member.progress.answers;
        self.totals.qualities += 1;
        self.totals.own_references += u64::from(member.progress.servers_alone);
        self.totals.accuracy += accuracy;
        self.totals.hallucination += hallucination;
    }

    /// Lets time pass: rounds end, and the seats of those who were away for too long are given up.
    pub fn pass(&mut self, seconds: f64) -> Vec<Effect> {
        let due = self.news.due(seconds);
        let mut effects: Vec<Effect> = due.into_iter().flat_map(|mlu| self.tell_presenters(mlu)).collect();
        if let Some(round) = self.round.as_mut()
            && round.pass(seconds)
        {
            effects.push(Effect::All(ServerMessage::Round(round.view())));
        }
        let mut lost = Vec::new();
        for member in self.members.values_mut().filter(|member| member.identity.cell.is_some()) {
            if member.connected && member.visible {
                continue;
            }
            member.away_for_s += seconds;
            // Whoever is connected but out of sight keeps its seat: its page sleeps, and nobody else needs it yet.
            if !member.connected && member.away_for_s > self.settings.away_s {
                lost.push(member.identity.mlu);
            }
        }
        effects.extend(lost.into_iter().flat_map(|mlu| self.leave(mlu)));
        effects
    }

    /// Tells the presenters of a member.
    #[must_use]
    pub fn tell_presenters(&self, mlu: u32) -> Vec<Effect> {
        let told =
            self.members.get(&mlu).and_then(member_view).map(|view| Effect::Presenters(ServerMessage::Member(view)));
        told.into_iter().collect()
    }
}
