//! The simulated cell in the worker. Changes are made one after the other by one task; a burst of slider positions is
//! taken together, so that the last one is shown within a few milliseconds however fast a person drags.

use std::cell::{self, RefCell};
use std::rc::Rc;

use wasm_bindgen_futures::spawn_local;

use super::EngineWorker;
use client::cell::{Cell, MeasuredQuality};
use client::offload::ports::Clock;
use client::offload::signal::Notify;
use client::protocol::worker::Event;
use client::protocol::world::WorldSettings;
use mec::{UserDecision, World};

/// An optimum that takes longer than this is left out until the sliders rest.
const QUICK_OPTIMUM_S: f64 = 0.004;
/// How long sliders have to be still for that.
const REST_S: f64 = 0.08;
/// Changes that may wait; only steps and resets can pile up, and nobody clicks that fast.
const MAX_CHANGES: usize = 64;

/// Something that happens to the cell.
pub(super) enum Change {
    /// New settings.
    Set(Box<WorldSettings>),
    /// The next slot, by the chosen decider.
    Next,
    /// Slot 0 again.
    Reset,
    /// The next slot, by these decisions of an ask.
    Step(Vec<UserDecision>),
    /// Something else changed that the view shows.
    Show,
}

/// The cell and what is about to happen to it.
#[derive(Default)]
pub(super) struct CellQueue {
    cell: RefCell<Option<Cell>>,
    changes: RefCell<Vec<Change>>,
    busy: cell::Cell<bool>,
    /// Whether changes have been taken that are not made yet.
    applying: cell::Cell<bool>,
    /// Rings when they are.
    applied: Notify,
    optimum_s: cell::Cell<f64>,
    /// What was last said about refused settings, so that it is said once.
    refused: RefCell<Vec<String>>,
}

impl CellQueue {
    pub(super) fn open(&self, cell: Cell) {
        *self.cell.borrow_mut() = Some(cell);
    }

    pub(super) fn set_measured(&self, measured: Option<MeasuredQuality>) {
        if let Some(cell) = self.cell.borrow_mut().as_mut() {
            cell.set_measured(measured);
        }
    }

    /// A copy of the simulator; `None` before the greeting.
    pub(super) fn world(&self) -> Option<World> {
        self.cell.borrow().as_ref().map(|cell| cell.world().clone())
    }

    /// Waits until every change that was asked for before is made: an ask counts on the settings that were sent before it.
    pub(super) async fn settled(&self) {
        let settled = || !self.applying.get() && self.changes.borrow().is_empty();
        self.applied.wait_for(|| settled().then_some(())).await;
    }

    /// A copy of the cell and what is decided about its present slot; `None` before the greeting. An ask expects so many
    /// tokens of answers.
    pub(super) async fn decided(
        &self,
        engine_worker: &Rc<EngineWorker>,
        tokens: Option<f64>,
    ) -> Option<(Cell, Vec<UserDecision>)> {
        let mut cell = self.cell.borrow().clone()?;
        tokens.into_iter().for_each(|tokens| cell.expect_tokens(tokens));
        let policy = engine_worker.policy_decision(cell.world()).await;
        let (_, decisions) = cell.decide(policy.as_ref());
        Some((cell, decisions))
    }
}

impl EngineWorker {
    pub(super) fn show_world(self: &Rc<Self>) {
        self.change_world(Change::Show);
    }

    pub(super) fn change_world(self: &Rc<Self>, change: Change) {
        let queue = &self.world;
        {
            let mut changes = queue.changes.borrow_mut();
            let full = changes.len() >= MAX_CHANGES;
            match (changes.last_mut(), &change) {
                (Some(last @ Change::Set(_)), Change::Set(_)) => *last = change,
                (Some(_), Change::Show) => {}
                _ if full => {}
                _ => changes.push(change),
            }
        }
        if !queue.busy.replace(true) {
            let engine_worker = Rc::clone(self);
            spawn_local(async move {
                engine_worker.run_changes().await;
                engine_worker.world.busy.set(false);
            });
        }
    }

    async fn run_changes(self: &Rc<Self>) {
        loop {
            // Messages that have arrived meanwhile come first: they may replace what is about to be done.
            self.clock.sleep(0.0).await;
            let changes = self.world.changes.take();
            if changes.is_empty() {
                return;
            }
            self.world.applying.set(true);
            for change in changes {
                self.make_change(change).await;
            }
            self.world.applying.set(false);
            self.world.applied.notify_all();
            let quick = self.world.optimum_s.get() <= QUICK_OPTIMUM_S;
            self.post_view(quick).await;
            if !quick {
                self.clock.sleep(REST_S).await;
                if self.world.changes.borrow().is_empty() {
                    self.post_view(true).await;
                }
            }
        }
    }

    async fn make_change(self: &Rc<Self>, change: Change) {
        let change = match change {
            Change::Next => match self.world.decided(self, None).await {
                Some((_, decisions)) => Change::Step(decisions),
                None => return,
            },
            change => change,
        };
        if let Some(cell) = self.world.cell.borrow_mut().as_mut() {
            match change {
                Change::Set(settings) => cell.set(*settings),
                Change::Reset => cell.reset(),
                Change::Step(decisions) => cell.step(&decisions),
                Change::Next | Change::Show => {}
            }
        }
        self.say_refused();
    }

    async fn post_view(self: &Rc<Self>, with_optimum: bool) {
        let Some(cell) = self.world.cell.borrow().clone() else { return };
        let policy = self.policy_decision(cell.world()).await;
        let begun_s = self.clock.now_s();
        let known = cell.knows_optimum();
        let view = cell.view(policy.as_ref(), with_optimum);
        if with_optimum && !known {
            self.world.optimum_s.set(self.clock.now_s() - begun_s);
        }
        // The optimum that the copy has found is kept, unless the slot has changed under it.
        if let Some(own) = self.world.cell.borrow_mut().as_mut()
            && own.settings() == cell.settings()
            && own.world().slot_index() == cell.world().slot_index()
        {
            *own = cell;
        }
        self.emit(Event::World { view });
    }

    fn say_refused(&self) {
        let refused = self.world.cell.borrow().as_ref().map(|cell| cell.refused().to_vec()).unwrap_or_default();
        let before = self.world.refused.replace(refused.clone());
        for message in refused.into_iter().filter(|message| !before.contains(message)) {
            self.notice(message);
        }
    }
}
