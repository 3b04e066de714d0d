//! What every panel shares: the signals, and the few things that can be done.

use std::rc::Rc;

use client::calibrate;
use client::protocol::VERSION;
use client::protocol::engine::ModelSource;
use client::protocol::worker::{AskMode, AskOptions, Command, Event, ModelState};
use client::protocol::world::{Decider, PolicyBackend, WorldSettings};
use leptos::prelude::*;

use crate::chat::Chat;
use crate::engine::{Engine, Listener};
use crate::format::{self, or_na};
use crate::run::{Run, Status};
use crate::server_only::ServerEvent;
use crate::settings::{Settings, View};
use crate::state::{COMPACT, Effect, Kind, Phase, Route, State};
use crate::training::Training;
use crate::{burst, dom, server_only};

/// Where it is remembered that a person deleted the model that comes by itself: it then waits to be asked for.
const DELETED_KEY: &str = "tandem-model-deleted";

/// Handle to everything; copied into closures.
#[derive(Clone, Copy)]
pub struct Ctx {
    /// What the worker said.
    pub state: RwSignal<State>,
    /// What a person set.
    pub settings: RwSignal<Settings>,
    /// What of the page is shown.
    pub view: Memo<View>,
    /// The conversation.
    pub chat: RwSignal<Chat>,
    /// What a person is about to say in it.
    pub chat_draft: RwSignal<String>,
    /// Whether all of it that is known is on the screen.
    pub chat_drawn: StoredValue<bool>,
    /// Modules that were fetched after the page.
    pub modules_there: RwSignal<Vec<&'static str>>,
    /// One that could not be fetched.
    pub module_problem: RwSignal<Option<&'static str>>,
    /// The recorded run as far as it is played.
    pub recorded: RwSignal<Option<Run>>,
    /// What is known of the training runs.
    pub training: RwSignal<Training>,
    /// Step of the tour, when it is on.
    pub tour: RwSignal<Option<usize>>,
    /// Whether the server has burn-wgpu's policy module.
    pub gpu_policy_there: RwSignal<bool>,
    /// The worker.
    pub engine: StoredValue<Engine, LocalStorage>,
    /// The files that a person chose as the model.
    files: StoredValue<Vec<web_sys::File>, LocalStorage>,
    /// Ends what the page itself asked of the server.
    abort: StoredValue<Option<web_sys::AbortController>, LocalStorage>,
    world_sent: StoredValue<Option<WorldSettings>>,
    frame_pending: StoredValue<bool>,
}

impl Ctx {
    /// Signals around these settings; nothing is started.
    pub fn new(settings: Settings) -> Self {
        let deleted = dom::recall(DELETED_KEY).is_some_and(|deleted| !deleted.is_empty());
        let waits = dom::costly_link().or(deleted.then_some("you deleted it"));
        let world_sent = StoredValue::new(Some(settings.world.clone()));
        let settings = RwSignal::new(settings);
        Self {
            view: Memo::new(move |_| settings.with(|s| s.view)),
            chat: RwSignal::new(Chat::default()),
            chat_draft: RwSignal::new(String::new()),
            chat_drawn: StoredValue::new(true),
            modules_there: RwSignal::new(Vec::new()),
            module_problem: RwSignal::new(None),
            state: RwSignal::new(State::waiting(waits)),
            world_sent,
            settings,
            recorded: RwSignal::new(None),
            training: RwSignal::new(Training::default()),
            tour: RwSignal::new(None),
            gpu_policy_there: RwSignal::new(false),
            engine: StoredValue::new_local(Engine::default()),
            files: StoredValue::new_local(Vec::new()),
            abort: StoredValue::new_local(None),
            frame_pending: StoredValue::new(false),
        }
    }

    /// Starts the worker.
    pub fn start(self) {
        self.engine.get_value().start(Rc::new(self));
    }

    /// Sends a command to the worker.
    pub fn send(self, command: Command) {
        let files = if about_files(&command) { self.files.get_value() } else { Vec::new() };
        if let Err(error) = self.engine.get_value().send(&command, &files) {
            self.notify(Kind::Problem, format!("The engine could not be reached ({}).", dom::error_text(&error)));
        }
    }

    /// Shows a notice.
    pub fn notify(self, kind: Kind, text: impl Into<String>) {
        let text = text.into();
        self.state.update(|s| s.notify(kind, text));
    }

    /// Changes the settings.
    pub fn set(self, change: impl FnOnce(&mut Settings)) {
        self.settings.update(change);
    }

    /// Reads what the page shows as the present run: the latest ask, of the chat where that is shown, else the recording
    /// until the model is here.
    pub fn with_run<T>(self, read: impl Fn(Option<&Run>) -> T) -> T {
        if self.view.get() == View::Chat {
            return self.chat.with(|chat| read(chat.last()));
        }
        self.state.with(|s| {
            if s.run.is_some() || s.device_ready() {
                read(s.run.as_ref())
            } else {
                self.recorded.with(|r| read(r.as_ref()))
            }
        })
    }

    /// Whether that is the recording.
    pub fn shows_recording(self) -> bool {
        self.view.get() != View::Chat
            && self.state.with(|s| s.run.is_none() && !s.device_ready())
            && self.recorded.with(Option::is_some)
    }

    /// Takes in a message of the worker.
    pub fn receive(self, event: Event) {
        if self.chat_hears(&event) {
            return;
        }
        let mut effects = Vec::new();
        self.state.update(|s| effects = s.apply(event, dom::now_ms()));
        for effect in effects {
            match effect {
                Effect::Send(command) => self.send(command),
                Effect::Reload => self.reload_once(),
                Effect::Decide(users) => self.set(|s| {
                    s.world.users = users;
                    s.world.decider = Decider::Policy;
                }),
                Effect::Calibrate(measured) => {
                    self.set(|s| calibrate::apply(&measured, &mut s.world));
                    let rate = |rate| or_na(rate, format::tokens_per_s);
                    let (device, server) = (rate(measured.device_tokens_per_s), rate(measured.server_tokens_per_s));
                    let trip = or_na(measured.round_trip_s, format::seconds);
                    self.notify(
                        Kind::Info,
                        format!("Measured: this device {device}, the server {server}, round trip {trip}. The world is like them now."),
                    );
                }
            }
        }
    }

    /// The worker stopped.
    pub fn engine_lost(self, again: bool, reason: &str) {
        self.state.update(|s| s.worker_lost(again, reason));
        self.chat_lost();
        if !again {
            server_only::watch_health(move |server| {
                let absent = self.state.with_untracked(|s| matches!(s.phase, Phase::Absent(_)));
                if absent {
                    self.receive(Event::Server { server });
                }
                absent
            });
        }
    }

    /// Page and worker are of different versions: one of them is from a stale cache. A reload fetches both anew; a second
    /// reload would not help.
    fn reload_once(self) {
        const KEY: &str = "tandem-reloaded";
        let session = window().session_storage().ok().flatten();
        let reloaded = session.as_ref().is_some_and(|s| s.get_item(KEY).ok().flatten().is_some());
        if let Some(session) = session.filter(|_| !reloaded) {
            let _ = session.set_item(KEY, "1");
            let _ = window().location().reload();
        } else {
            self.engine_lost(false, "page and engine are of different versions; empty the browser's cache and reload");
        }
    }

    /// Asks what stands in the prompt box.
    pub fn ask(self) {
        let settings = self.settings.get_untracked();
        let questions = match burst::parse(&settings.prompt) {
            Ok(questions) => questions,
            Err(error) => return self.notify(Kind::Problem, error.to_string()),
        };
        if self.state.with_untracked(State::busy) {
            return self.notify(Kind::Info, "Still answering. Press Esc to stop, then ask again.");
        }
        let Some((route, mode)) = self.routed(settings.options.mode) else { return };
        let mut ask = 0;
        self.state.update(|s| ask = s.begin(&questions, mode, dom::now_ms()));
        self.put(route, ask, questions, Vec::new(), AskOptions { mode, ..settings.options });
    }

    /// Measures both sides with what stands in the prompt box, or with a suggested burst.
    pub fn calibrate(self) {
        let questions = self
            .settings
            .with_untracked(|s| burst::parse(&s.prompt))
            .unwrap_or_else(|_| burst::suggestions().pop().map_or_else(Vec::new, |suggestion| suggestion.questions));
        if let Some(command) = self.state.try_update(|s| s.calibrate(questions)) {
            self.send(command);
        }
    }

    /// Goes on with an answer that was cut.
    pub fn go_on(self, index: usize) {
        let options = self.settings.with_untracked(|s| s.options.clone());
        let Some((route, mode)) = self.routed(options.mode) else { return };
        let mut next = None;
        self.state.update(|s| next = s.go_on(index, mode, dom::now_ms()));
        if let Some((ask, question, begun)) = next {
            // What one side would have said from there on says nothing of the whole.
            let options = AskOptions { mode, compare: false, ..options };
            self.put(route, ask, vec![question], vec![begun], options);
        }
    }

    /// Who answers now, and where; `None`, and a word about it, where nobody does.
    pub fn routed(self, wanted: AskMode) -> Option<(Route, AskMode)> {
        let route = self.state.with_untracked(|s| s.route(wanted));
        match route {
            Route::Refuse(text) => {
                self.notify(Kind::Problem, text);
                None
            }
            Route::Worker(mode) => Some((route, mode)),
            Route::Page => Some((route, AskMode::ServerOnly)),
        }
    }

    /// Has questions answered by whom the route names.
    pub fn put(self, route: Route, ask: u64, prompts: Vec<String>, begun: Vec<String>, options: AskOptions) {
        if route == Route::Page {
            self.ask_server(ask, prompts, begun, options);
        } else {
            self.send(Command::Ask { ask, prompts, begun, options });
        }
    }

    /// Has the server answer without a worker.
    fn ask_server(self, ask: u64, questions: Vec<String>, begun: Vec<String>, options: AskOptions) {
        let Ok(abort) = web_sys::AbortController::new() else {
            return self.finish(ask, Status::Failed("This browser cannot ask the server. Update it.".into()));
        };
        self.abort.set_value(Some(abort.clone()));
        leptos::task::spawn_local(async move {
            let tell = |heard| match heard {
                ServerEvent::Event(event) => self.receive(event),
                ServerEvent::Decoded(decoded) => self.state.update(|s| {
                    if let Some(run) = s.run.as_mut().filter(|run| run.ask == ask) {
                        run.server_decoded += decoded;
                    }
                }),
            };
            let signal = abort.signal();
            let status = match server_only::answer(ask, &questions, &begun, &options, &signal, tell).await {
                Ok(()) => Status::Done,
                Err(_) if signal.aborted() => Status::Stopped,
                Err(error) => {
                    let message = format!("The server did not answer: {error}. Your questions are kept; try again.");
                    self.receive(Event::Failed { ask: Some(ask), message: message.clone() });
                    Status::Failed(message)
                }
            };
            self.abort.set_value(None);
            self.finish(ask, status);
        });
    }

    /// Stops what is being answered, wherever it runs.
    pub fn stop(self) {
        let run = self.state.with_untracked(|s| s.run.as_ref().filter(|r| r.active()).map(|r| r.ask));
        let chat = self.chat.with_untracked(Chat::asking);
        run.into_iter().chain(chat).for_each(|ask| self.stop_ask(ask));
    }

    /// A number for an ask.
    pub fn next_ask(self) -> u64 {
        self.state.try_update_untracked(State::next_id).unwrap_or_default()
    }

    /// Stops an ask.
    pub fn stop_ask(self, ask: u64) {
        if let Some(abort) = self.abort.get_value() {
            abort.abort();
        } else {
            self.send(Command::Stop { ask });
        }
    }

    /// Ends a run that no worker record will end.
    pub fn finish(self, ask: u64, status: Status) {
        self.chat.update(|chat| chat.finish(ask, status.clone()));
        self.state.update(|s| {
            if let Some(run) = s.run.as_mut().filter(|r| r.ask == ask && r.active()) {
                run.status = status;
            }
        });
    }

    /// Chooses a model, with the files that it is in where a person picked some.
    pub fn choose(self, source: ModelSource, files: Vec<web_sys::File>) {
        self.files.set_value(files);
        self.set(|s| crate::source::link(&source).clone_into(&mut s.model));
        self.state.update(|s| s.choose(source));
    }

    /// Chooses the model that a link names, unless it is the one already.
    pub fn follow_link(self, text: &str) {
        if let Some(source) = crate::source::of_link(text)
            && self.state.with_untracked(|s| s.choice == 0 || crate::source::link(&s.source) != text)
        {
            self.files.set_value(Vec::new());
            self.state.update(|s| s.choose(source));
        }
    }

    /// Asks the worker what the chosen model will take.
    pub fn inspect(self) {
        let command = self.state.try_update_untracked(State::inspect);
        if let Some(command) = command {
            self.send(command);
        }
    }

    /// Downloads (or goes on downloading) and loads the chosen model.
    pub fn load_model(self) {
        dom::remember(DELETED_KEY, "");
        self.state.update(|s| s.unasked = false);
        self.send(self.state.with_untracked(|s| s.load(false)));
    }

    /// Removes the chosen model from this device. The page does not fetch it by itself again.
    pub fn delete_model(self) {
        let (id, preferred) =
            self.state.with_untracked(|s| (s.source.id(), s.entry().is_some_and(|entry| entry.preferred)));
        if id == COMPACT || preferred {
            dom::remember(DELETED_KEY, "1");
        }
        self.send(Command::DeleteModel { id });
    }

    /// Loads the burn-wgpu policy when the page has nothing better to do.
    pub fn consider_gpu_policy(self) {
        if self.state.with_untracked(State::wants_gpu_policy) {
            self.send(Command::UsePolicyBackend { backend: PolicyBackend::BurnWgpu });
        }
    }

    /// Sends the world to the worker with the next frame, if it changed: a slider moves more often than that.
    pub fn world_changed(self) {
        if self.frame_pending.get_value() {
            return;
        }
        self.frame_pending.set_value(true);
        request_animation_frame(move || {
            self.frame_pending.set_value(false);
            let world = self.settings.with_untracked(|s| s.world.clone());
            if self.world_sent.with_value(|sent| sent.as_ref() != Some(&world)) {
                self.world_sent.set_value(Some(world.clone()));
                self.send(Command::SetWorld { world });
            }
        });
    }
}

impl Listener for Ctx {
    fn greeting(&self) -> Command {
        let settings = self.settings.get_untracked();
        Command::Init { version: VERSION, base_url: dom::base_url(), tier: settings.tier, world: settings.world }
    }

    fn hear(&self, text: &str) -> Result<(), String> {
        self.receive(serde_json::from_str(text).map_err(|error| error.to_string())?);
        Ok(())
    }

    fn misunderstood(&self, problem: String) {
        self.notify(
            Kind::Problem,
            format!("The engine said something that this page does not understand ({problem})."),
        );
    }

    fn waited(&self) {
        if self.state.with_untracked(|s| s.phase == Phase::Starting) {
            self.notify(Kind::Info, "The engine is slow to start; the server answers meanwhile.");
        }
    }

    fn is_up(&self) -> bool {
        self.state.with_untracked(|s| s.phase == Phase::Ready)
    }

    fn is_loading(&self) -> bool {
        self.state.with_untracked(|s| matches!(s.model(), ModelState::Loading { .. } | ModelState::Testing { .. }))
    }

    fn lost(&self, again: bool, reason: &str) {
        self.engine_lost(again, reason);
    }
}

/// Whether the chosen files travel beside this command.
fn about_files(command: &Command) -> bool {
    matches!(command, Command::Inspect { .. } | Command::LoadModel { .. })
}

/// The panels' way to the context.
pub fn ctx() -> Ctx {
    expect_context::<Ctx>()
}
