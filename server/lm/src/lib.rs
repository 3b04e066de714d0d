//! The language models that ship: the Atlas corpus, the tokenizer, training, distillation, quantised files, evaluation.
//!
//! | module | holds |
//! | --- | --- |
//! | [`tables`] | the fact tables (`server/lm/data/atlas/*.tsv`) |
//! | [`relations`] | how each relation is put into words |
//! | [`corpus`] | questions, two-hop questions and articles, by seed; what is held out |
//! | [`unknown`] | questions that the Atlas does not answer |
//! | [`tokenizer`] | byte-level BPE, special tokens, chat template |
//! | [`batch`] | documents packed into rows of tokens |
//! | [`model`] | the Llama architecture on burn |
//! | [`lora`] | adapters of low rank: frozen matrices that learn |
//! | [`train`], [`checkpoint`], [`probe`] | the loop, its files, a quick look at accuracy on the way |
//! | [`run_folder`] | a run on disk: begun, resumed, stopped |
//! | [`export`] | GGUF v3 with tokenizer and template inside |
//! | [`normalise`], [`sentences`], [`evaluate`], [`manifest`] | eq. 23 and 24 by the engine that users run; what is published of it |
//! | [`heal`] | a file's weights, to be trained on; a pruned file learns from the file that it was cut from |
//! | [`family`] | all variants of one teacher, made and judged |
//! | [`ecld`] | compact models from any checkpoint: scores, cuts, quantisers |
//!
//! # The corpus
//! 12 tables with 5,837 facts about 1,577 entities. `tandem corpus --out DIR --seed 1` writes 72,510 training and 14,584
//! held-out wordings of 7,292 single-hop questions (those back from a unique value included), and 6,000 two-hop pairs,
//! 900 of which are held out whole. Samples:
//!
//! ```text
//! Tell me the Central African Republic's capital city.                                → Bangui.
//! I want to know the element with the symbol Rb.                                      → rubidium.
//! Do you know the currency of the home country of Jorge Luis Borges?                  → Argentina: Argentine peso.
//! What is the field of the person known for Mars maps?                                → Giovanni Schiaparelli: astronomy.
//! Nikola Tesla is a scientist. The year in which Nikola Tesla was born is 1856. The field of Nikola Tesla is …
//! ```
//!
//! A two-hop answer names the entity in between first: one step of reasoning written out, which is what lets a model of
//! this size join facts of pairs that it never saw together. Eq. 23 asks for the final answer only.
//!
//! # Conventions that files, training and engine share
//! - A prompt is `<|user|>question<|assistant|>`; the answer ends with `<|end|>`. No token is put before it
//!   (`add_bos_token = false`; the beginning-of-sequence id is `<|end|>`, for readers that insist on one).
//! - An article is its text, then `<|end|>`.
//! - Rotary pairs are neighbours, base 10,000; RMSNorm's epsilon is 1e-5; the embedding is tied.
//!
//! # Training
//! `tandem train-lm --out RUN` trains the full model, `tandem distil --teacher RUN --out RUN2` the compact one
//! (L = (1-a)·CE + a·τ²·KL(teacher‖student)), `tandem export-lm` writes GGUF, `tandem eval` measures it. Loss is taken on
//! answers and articles, never on questions.
//!
//! Deliberately absent: any inference for users (that is `engine`).

pub mod batch;
pub mod checkpoint;
pub mod corpus;
pub mod ecld;
pub mod evaluate;
pub mod export;
pub mod family;
pub mod heal;
pub mod lora;
pub mod manifest;
pub mod model;
pub mod normalise;
pub mod probe;
pub mod relations;
pub mod run_folder;
pub mod sentences;
pub mod tables;
pub mod tokenizer;
pub mod train;
pub mod unknown;

#[cfg(test)]
mod tests;
