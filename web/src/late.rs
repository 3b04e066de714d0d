//! Modules that a fresh checkout's server may still be building when the page opens: burn-wgpu's policy. `assets.json` beside
//! the page lists what is there.

use std::time::Duration;

use leptos::prelude::*;
use leptos::task::spawn_local;

use crate::api::{self, Ask};
use crate::ctx::Ctx;

/// The last of the module's files that is put there, as the list names it.
const GPU_POLICY: &str = "\"policy_gpu_bg.wasm\"";
/// Time between two looks.
const EVERY: Duration = Duration::from_secs(20);
/// So often it is looked: for an hour.
const LOOKS: u32 = 180;

/// Looks for the module until it is there.
pub fn watch(ctx: Ctx) {
    look(ctx, LOOKS);
}

fn look(ctx: Ctx, left: u32) {
    spawn_local(async move {
        let is_there = match api::send(Ask { path: "assets.json", ..Ask::default() }).await {
            Ok(list) => api::text(&list).await.is_ok_and(|list| list.contains(GPU_POLICY)),
            // A page that trunk has made has no list, and is whole.
            Err(_) => true,
        };
        if is_there {
            ctx.gpu_policy_there.set(true);
        } else if left > 0 {
            set_timeout(move || look(ctx, left - 1), EVERY);
        }
    });
}
