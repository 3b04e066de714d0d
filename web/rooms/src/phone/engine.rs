//! The compact model in this tab: the main page's engine worker, told to answer one question at a time by the room's α.

use std::cell::RefCell;
use std::rc::Rc;

use client::protocol::VERSION;
use client::protocol::engine::ModelSource;
use client::protocol::rooms::up::MeasuredQuality;
use client::protocol::worker::{AskOptions, Command, Origin, Tier, TierChoice};
use client::protocol::world::{Decider, WorldSettings};
use leptos::prelude::*;
use web::dom;
use web::engine::{Engine, Listener};

use super::heard::{Heard, heard};

/// The shipped compact model, by its id in the server's manifest.
const MODEL: &str = "compact";

/// How far the model is.
#[derive(Clone, Debug, PartialEq)]
pub enum Stage {
    /// Not asked for.
    Off,
    /// The worker is being fetched and started.
    Starting,
    /// The model arrives or is put into memory; a share of 0..=1.
    Coming(f64),
    /// It answers.
    Ready,
    /// It does not work here; the server answers all.
    Failed(String),
}

/// What an answer brings.
pub enum Said {
    /// Text of one side.
    Text(Origin, String),
    /// It is over.
    Done {
        /// Whether a person stopped it.
        stopped: bool,
        /// Whether this phone had to finish the server's part.
        server_lost: bool,
    },
    /// It could not be answered.
    Failed(String),
    /// Something to know.
    Notice(String),
    /// Its quality, eq. 28, after it is over.
    Compared(MeasuredQuality),
}

type Hear = Rc<dyn Fn(Said)>;

/// The model and what it is doing.
#[derive(Clone)]
pub struct Model {
    engine: Engine,
    /// How far it is.
    pub stage: RwSignal<Stage>,
    /// Which kernels run.
    pub tier: RwSignal<Option<Tier>>,
    asked: Rc<RefCell<Option<(u64, Hear)>>>,
    /// The last one that is over: how good it was is told later.
    over: Rc<RefCell<Option<(u64, Hear)>>>,
    asks: Rc<std::cell::Cell<u64>>,
}

impl Model {
    /// Nothing is fetched yet.
    pub fn new() -> Self {
        Self {
            engine: Engine::default(),
            stage: RwSignal::new(Stage::Off),
            tier: RwSignal::new(None),
            asked: Rc::default(),
            over: Rc::default(),
            asks: Rc::default(),
        }
    }

    /// Fetches engine and model.
    pub fn start(&self) {
        self.stage.set(Stage::Starting);
        self.engine.start(Rc::new(self.clone()));
    }

    /// Answers a question: the share `alpha` of it on the server, the rest here; then measures how good that is, with the
    /// threshold γ, where one is given.
    pub fn ask(&self, question: String, alpha: f64, power_share: f64, threshold: Option<f64>, hear: Hear) {
        let ask = self.asks.get() + 1;
        self.asks.set(ask);
        *self.asked.borrow_mut() = Some((ask, hear));
        // The room has decided; the worker's own cell only carries that to the split. Its uplink is not the room's, so that
        // nothing is held back to it.
        let options = AskOptions {
            pacing: false,
            compare: threshold.is_some(),
            threshold: threshold.unwrap_or_default(),
            ..AskOptions::default()
        };
        let commands = [
            Command::SetWorld { world: world(alpha, power_share) },
            Command::Ask { ask, prompts: vec![question], begun: Vec::new(), options },
        ];
        for command in commands {
            if let Err(error) = self.engine.send(&command, &[]) {
                self.tell(ask, Said::Failed(dom::error_text(&error)));
            }
        }
    }

    /// Stops the answer under way.
    pub fn stop(&self) {
        if let Some((ask, _)) = *self.asked.borrow() {
            let _ = self.engine.send(&Command::Stop { ask }, &[]);
        }
    }

    fn tell(&self, ask: u64, said: Said) {
        let is_over = matches!(said, Said::Done { .. } | Said::Failed(_));
        let hear = self.asked.borrow().as_ref().filter(|(known, _)| *known == ask).map(|(_, hear)| Rc::clone(hear));
        if let Some(hear) = hear {
            if is_over {
                let over = self.asked.borrow_mut().take();
                *self.over.borrow_mut() = over;
            }
            hear(said);
        }
    }

    fn current(&self) -> Option<u64> {
        self.asked.borrow().as_ref().map(|(ask, _)| *ask)
    }

    fn ready(&self, tier: Tier, reason: String, models: &[String]) {
        self.tier.set(Some(tier));
        if tier == Tier::ServerOnly {
            self.stage.set(Stage::Failed(reason));
        } else if !models.iter().any(|id| id == MODEL) {
            self.stage.set(Stage::Failed("The server offers no compact model.".to_owned()));
        } else if self.stage.with_untracked(|stage| *stage != Stage::Ready) {
            self.stage.set(Stage::Coming(0.0));
            let source = ModelSource::Server { id: MODEL.to_owned() };
            let _ = self.engine.send(&Command::LoadModel { source, context: None, unasked: false }, &[]);
        }
    }

    fn model(&self, state: &str, share: f64, message: String) {
        self.stage.set(match state {
            "downloading" => Stage::Coming(0.8 * share),
            "loading" => Stage::Coming(0.8 + 0.1 * share),
            "testing" => Stage::Coming(0.9 + 0.1 * share),
            "ready" => Stage::Ready,
            "failed" => Stage::Failed(message),
            "partial" => Stage::Failed("The download was cut. Try again.".to_owned()),
            // Before the load begins.
            _ => return,
        });
    }
}

fn world(alpha: f64, power_share: f64) -> WorldSettings {
    WorldSettings {
        users: 1,
        seed: 1,
        decider: Decider::Manual,
        manual_alpha: alpha.clamp(0.0, 1.0),
        manual_power: power_share.clamp(0.0, 1.0),
        ..WorldSettings::default()
    }
}

impl Listener for Model {
    fn greeting(&self) -> Command {
        Command::Init { version: VERSION, base_url: dom::base_url(), tier: TierChoice::Auto, world: world(0.0, 0.0) }
    }

    fn hear(&self, text: &str) -> Result<(), String> {
        match heard(text).ok_or("it is no event")? {
            Heard::Ready { version, .. } if version != VERSION => {
                self.stage.set(Stage::Failed("This page is older than the server’s engine. Reload it.".to_owned()));
            }
            Heard::Ready { tier, reason, models, .. } => self.ready(tier, reason, &models),
            Heard::Tier(tier) => self.tier.set(Some(tier)),
            Heard::Model { id, state, share, message } if id == MODEL => self.model(&state, share, message),
            Heard::Token { ask, origin, text } => self.tell(ask, Said::Text(origin, text)),
            Heard::Done { ask, stopped, server_lost } => self.tell(ask, Said::Done { stopped, server_lost }),
            Heard::Compared { ask, quality } => {
                let over = self.over.borrow_mut().take_if(|(known, _)| *known == ask);
                if let Some((_, hear)) = over {
                    hear(Said::Compared(quality));
                }
            }
            Heard::Failed { ask: Some(ask), message } => self.tell(ask, Said::Failed(message)),
            Heard::Failed { ask: None, message } if self.is_loading() => self.stage.set(Stage::Failed(message)),
            Heard::Notice { ask, message } => self.tell(ask, Said::Notice(message)),
            Heard::Model { .. } | Heard::Failed { .. } | Heard::Other => {}
        }
        Ok(())
    }

    fn misunderstood(&self, _problem: String) {
        self.stage.set(Stage::Failed("This page does not understand the engine. Reload it.".to_owned()));
    }

    fn waited(&self) {}

    fn is_up(&self) -> bool {
        self.stage.with_untracked(|stage| matches!(stage, Stage::Coming(_) | Stage::Ready))
    }

    fn is_loading(&self) -> bool {
        self.stage.with_untracked(|stage| matches!(stage, Stage::Coming(_)))
    }

    fn lost(&self, again: bool, reason: &str) {
        if let Some(ask) = self.current() {
            self.tell(ask, Said::Failed("The engine was lost in the middle of this answer.".to_owned()));
        }
        self.stage.set(if again { Stage::Starting } else { Stage::Failed(format!("The engine stopped: {reason}")) });
    }
}
