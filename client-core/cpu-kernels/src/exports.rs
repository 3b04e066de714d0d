//! What a page's worker calls. Sizes are in bytes unless a name says otherwise; what the numbers mean is in [`abi`].
//!
//! A model is built piece by piece (`begin`, `matrix` and its `rows`, `vector`, `layer`, `finish`), so that a file
//! never has to be in this memory as a whole. Only the thread that made the instance calls these; helpers call `help` and `unpark`.

#![allow(unsafe_code, reason = "functions with names, and memory that the page has written")]

use std::sync::{Mutex, MutexGuard};

use crate::abi::{self, ACCEPTED, ALIGNMENT, NOT_ACCEPTED, REFUSED};
use crate::blocks::GgmlType;
use crate::matrix::{Matrix, WrongSize};
use crate::model::{Layer, Model, ModelShape, Sequences};
use crate::tile;

#[derive(Default)]
struct Building {
    shape: Option<ModelShape>,
    embedding: Option<Matrix>,
    head: Option<Matrix>,
    output_norm: Vec<f32>,
    layers: Vec<Parts>,
}

#[derive(Default)]
struct Parts {
    /// [`abi::LAYER_MATRICES`].
    matrices: [Option<Matrix>; abi::LAYER_MATRICES.len()],
    /// [`abi::LAYER_VECTORS`].
    vectors: [Vec<f32>; abi::LAYER_VECTORS.len()],
    rope: Option<usize>,
    window: Option<usize>,
}

impl Parts {
    fn layer(self) -> Option<Layer> {
        let [q, k, v, o, gate, up, down] = self.matrices;
        let [attn_norm, ffn_norm, qkv_bias, q_norm, k_norm, post_attn_norm, post_ffn_norm] = self.vectors;
        Some(Layer {
            attn_norm,
            qkv: [q?, k?, v?],
            o: o?,
            ffn_norm,
            gate_up: [gate?, up?],
            down: down?,
            qkv_bias,
            q_norm,
            k_norm,
            post_attn_norm,
            post_ffn_norm,
            rope: self.rope,
            window: self.window,
        })
    }
}

#[derive(Default)]
struct State {
    building: Building,
    models: Vec<Option<Model>>,
    /// With the number of the model.
    sequences: Vec<Option<(usize, Sequences)>>,
}

static STATE: Mutex<Option<State>> = Mutex::new(None);

fn with<T>(act: impl FnOnce(&mut State) -> T) -> T {
    let mut guard: MutexGuard<'_, Option<State>> = STATE.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    act(guard.get_or_insert_with(State::default))
}

fn accepted(is: bool) -> u32 {
    if is { ACCEPTED } else { NOT_ACCEPTED }
}

/// What the page wrote at `start`.
///
/// # Safety
/// `start` comes from [`allocate`] for at least `len` elements.
unsafe fn written<'a, T>(start: *const T, len: u32) -> &'a [T] {
    // SAFETY: the caller's promise.
    unsafe { std::slice::from_raw_parts(start, len as usize) }
}

/// Room for `bytes` bytes, aligned to [`ALIGNMENT`]; 0 when there is none.
#[unsafe(no_mangle)]
extern "C" fn allocate(bytes: u32) -> *mut u8 {
    match std::alloc::Layout::from_size_align(bytes.max(1) as usize, ALIGNMENT) {
        // SAFETY: the size is not 0.
        Ok(layout) => unsafe { std::alloc::alloc(layout) },
        Err(_) => std::ptr::null_mut(),
    }
}

/// Gives back what [`allocate`] returned for the same number of bytes.
#[unsafe(no_mangle)]
extern "C" fn release(start: *mut u8, bytes: u32) {
    if let Ok(layout) = std::alloc::Layout::from_size_align(bytes.max(1) as usize, ALIGNMENT)
        && !start.is_null()
    {
        // SAFETY: the page passes what it got.
        unsafe { std::alloc::dealloc(start, layout) };
    }
}

/// Begins a model: its shape ([`abi::shape_words`]) and the number of layers.
#[unsafe(no_mangle)]
extern "C" fn begin(sizes: *const u32, layers: u32) {
    // SAFETY: the page allocated them.
    let words = unsafe { written(sizes, abi::SHAPE_WORDS as u32) };
    let shape = <[u32; abi::SHAPE_WORDS]>::try_from(words).ok().map(abi::shape_of);
    let layers = (0..layers).map(|_| Parts::default()).collect();
    with(|state| state.building = Building { shape, layers, ..Building::default() });
}

/// The place of a matrix of the model that is being built. `part`: a number of [`abi::LAYER_MATRICES`], [`abi::EMBEDDING`]
/// or [`abi::HEAD`].
fn place_of(building: &mut Building, part: u32, layer: u32) -> Option<&mut Option<Matrix>> {
    match part {
        abi::EMBEDDING => Some(&mut building.embedding),
        abi::HEAD => Some(&mut building.head),
        _ => building.layers.get_mut(layer as usize).and_then(|parts| parts.matrices.get_mut(part as usize)),
    }
}

/// Room for a matrix, whose [`rows`] come next.
#[unsafe(no_mangle)]
extern "C" fn matrix(part: u32, layer: u32, format: u32, rows: u32, cols: u32, as_singles: u32) -> u32 {
    let Some(format) = GgmlType::from_id(format) else { return NOT_ACCEPTED };
    let Ok(matrix) = Matrix::zeros(format, rows as usize, cols as usize, as_singles != 0) else { return NOT_ACCEPTED };
    with(|state| {
        let place = place_of(&mut state.building, part, layer);
        accepted(place.map(|place| *place = Some(matrix)).is_some())
    })
}

/// Rows of a matrix that has its place, from number `first` on.
#[unsafe(no_mangle)]
extern "C" fn rows(part: u32, layer: u32, format: u32, first: u32, start: *const u8, bytes: u32) -> u32 {
    // SAFETY: the page wrote them.
    let bytes = unsafe { written(start, bytes) };
    let Some(format) = GgmlType::from_id(format) else { return NOT_ACCEPTED };
    with(|state| {
        let matrix = place_of(&mut state.building, part, layer).and_then(Option::as_mut);
        accepted(matrix.is_some_and(|matrix| matrix.put_rows(format, first as usize, bytes).is_ok()))
    })
}

/// A vector of the model that is being built. `part`: a number of [`abi::LAYER_VECTORS`], or
/// [`abi::OUTPUT_NORM`].
#[unsafe(no_mangle)]
extern "C" fn vector(part: u32, layer: u32, start: *const f32, len: u32) -> u32 {
    // SAFETY: the page wrote them.
    let values = unsafe { written(start, len) }.to_vec();
    with(|state| {
        let building = &mut state.building;
        let place = match part {
            abi::OUTPUT_NORM => Some(&mut building.output_norm),
            _ => building.layers.get_mut(layer as usize).and_then(|parts| parts.vectors.get_mut(part as usize)),
        };
        accepted(place.map(|place| *place = values).is_some())
    })
}

/// Which of a position's rotations a layer takes ([`abi::optional_code`]), and how many tokens a token sees (likewise; none is
/// all).
#[unsafe(no_mangle)]
extern "C" fn layer(layer: u32, rope: u32, window: u32) -> u32 {
    with(|state| match state.building.layers.get_mut(layer as usize) {
        Some(parts) => {
            (parts.rope, parts.window) = (abi::optional_of(rope), abi::optional_of(window));
            ACCEPTED
        }
        None => NOT_ACCEPTED,
    })
}

/// Ends the building; returns the model's number.
#[unsafe(no_mangle)]
extern "C" fn finish() -> u32 {
    with(|state| {
        let built = std::mem::take(&mut state.building);
        let model = (|| {
            let layers = built.layers.into_iter().map(Parts::layer).collect::<Option<Vec<_>>>()?;
            Model::new(built.shape?, built.embedding?, layers, built.output_norm, built.head).ok()
        })();
        match model {
            Some(model) => place(&mut state.models, model),
            None => REFUSED,
        }
    })
}

/// Puts `value` into the first free place.
fn place<T>(places: &mut Vec<Option<T>>, value: T) -> u32 {
    let at = places.iter().position(Option::is_none).unwrap_or(places.len());
    if at == places.len() {
        places.push(None);
    }
    places[at] = Some(value);
    at as u32
}

/// Frees a model and its sequences; also what was begun and not finished.
#[unsafe(no_mangle)]
extern "C" fn free_model(model: u32) {
    with(|state| {
        state.building = Building::default();
        for sequence in &mut state.sequences {
            if sequence.as_ref().is_some_and(|(of, _)| *of == model as usize) {
                *sequence = None;
            }
        }
        if let Some(place) = state.models.get_mut(model as usize) {
            *place = None;
        }
    });
}

/// So many empty sequences of a model, its rows; returns the number of them all.
#[unsafe(no_mangle)]
extern "C" fn sequences(model: u32, rows: u32) -> u32 {
    with(|state| match state.models.get(model as usize) {
        Some(Some(of)) => {
            let sequences = Sequences::new(of, rows as usize);
            place(&mut state.sequences, (model as usize, sequences))
        }
        _ => REFUSED,
    })
}

/// Frees sequences.
#[unsafe(no_mangle)]
extern "C" fn free_sequences(sequences: u32) {
    with(|state| {
        if let Some(place) = state.sequences.get_mut(sequences as usize) {
            *place = None;
        }
    });
}

/// Forgets all tokens of a row after the first `len`.
#[unsafe(no_mangle)]
extern "C" fn truncate(sequences: u32, row: u32, len: u32) {
    with(|state| {
        if let Some(Some((_, sequences))) = state.sequences.get_mut(sequences as usize) {
            sequences.truncate(row as usize, len as usize);
        }
    });
}

/// Passes over the model of some sequences; not accepted where there is none, or it refuses.
fn pass(sequences: u32, act: impl FnOnce(&mut Sequences, &Model) -> Result<(), WrongSize>) -> u32 {
    with(|state| {
        let State { models, sequences: all, .. } = state;
        let Some(Some((model, sequences))) = all.get_mut(sequences as usize) else { return NOT_ACCEPTED };
        let Some(Some(model)) = models.get(*model) else { return NOT_ACCEPTED };
        accepted(act(sequences, model).is_ok())
    })
}

/// Appends `m` tokens to a row. `rotation` holds `rotated` singles. `want`: [`abi::want_code`].
/// Returns whether it was accepted.
#[unsafe(no_mangle)]
extern "C" fn forward(
    sequences: u32,
    row: u32,
    tokens: *const u32,
    m: u32,
    rotation: *const f32,
    rotated: u32,
    want: u32,
) -> u32 {
    // SAFETY: the page wrote them.
    let (tokens, rotation) = unsafe { (written(tokens, m), written(rotation, rotated)) };
    let Some(want) = abi::want_of(want) else { return NOT_ACCEPTED };
    pass(sequences, |sequences, model| sequences.forward(model, row as usize, tokens, rotation, want))
}

/// Appends a token to each of `m` rows and leaves the logits after each. Returns whether it was accepted.
#[unsafe(no_mangle)]
extern "C" fn step(
    sequences: u32,
    rows: *const u32,
    tokens: *const u32,
    m: u32,
    rotation: *const f32,
    rotated: u32,
) -> u32 {
    // SAFETY: the page wrote them.
    let (rows, tokens, rotation) = unsafe { (written(rows, m), written(tokens, m), written(rotation, rotated)) };
    pass(sequences, |sequences, model| sequences.step(model, rows, tokens, rotation))
}

/// Where the last pass's output is.
#[unsafe(no_mangle)]
extern "C" fn output(sequences: u32) -> *const f32 {
    with(|state| match state.sequences.get(sequences as usize) {
        Some(Some((_, sequences))) => sequences.output().as_ptr(),
        _ => std::ptr::null(),
    })
}

/// How many singles it holds.
#[unsafe(no_mangle)]
extern "C" fn output_len(sequences: u32) -> u32 {
    with(|state| match state.sequences.get(sequences as usize) {
        Some(Some((_, sequences))) => sequences.output().len() as u32,
        _ => 0,
    })
}

/// How bytes are multiplied in the relaxed builds ([`abi::fuse_code`]). What comes out is the same, which is what this is for:
/// to show it.
#[unsafe(no_mangle)]
extern "C" fn fuse(choice: u32) {
    tile::fuse(abi::fuse_of(choice));
}

#[cfg(kernel_threads)]
mod threads {
    use crate::pool::shared;

    /// A helper's work; returns the value of the signal to wait on.
    #[unsafe(no_mangle)]
    extern "C" fn help() -> u32 {
        // The page takes as many as are to help: none is told apart.
        shared::help(0)
    }

    /// A helper that waited is back.
    #[unsafe(no_mangle)]
    extern "C" fn unpark() {
        shared::unpark();
    }

    /// Address of the signal.
    #[unsafe(no_mangle)]
    extern "C" fn signal() -> *const u32 {
        shared::signal()
    }

    /// How many helpers there are.
    #[unsafe(no_mangle)]
    extern "C" fn set_helpers(count: u32) {
        shared::set_helpers(count);
    }
}
