//! Training runs and the life of the server's process: killed in the middle of a run, asked to end, started again.
// Clippy's leave for tests does not reach their helpers.
#![allow(clippy::unwrap_used)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(runs: &Path) -> Self {
        let mut child = tests::tandem()
            .args(["serve", "--listen", "127.0.0.1:0", "--runs"])
            .arg(runs)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let url = line.trim().strip_prefix("Tandem is ready at http://").unwrap_or_else(|| panic!("it says: {line}"));
        let address = url.trim_end_matches('/').to_owned();
        Self { child, address }
    }

    /// Status and body of an answer.
    fn ask(&self, method: &str, path: &str, body: &Value) -> (u16, Value) {
        let body = body.to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n",
            self.address,
            body.len()
        );
        stream.write_all((head + &body).as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        (status, serde_json::from_str(body).unwrap_or(Value::Null))
    }

    fn run(&self, id: &Value) -> Value {
        self.ask("GET", &format!("/api/runs/{id}"), &Value::Null).1
    }

    fn until(&self, id: &Value, what: &str, done: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let run = self.run(id);
            if done(&run) {
                return run;
            }
            assert!(start.elapsed() < Duration::from_secs(60), "gave up waiting until {what}: {run}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Asks the process to end, as Ctrl-C does.
    #[cfg(unix)]
    fn interrupt(mut self) {
        let done = Command::new("kill").args(["-INT", &self.child.id().to_string()]).status().unwrap();
        assert!(done.success());
        assert!(self.child.wait().unwrap().success());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tiny() -> Value {
    json!({
        "users": 1, "envs": 2, "steps": 1_000_000,
        "hyper": {
            "rollout_steps": 4, "minibatch": 8, "epochs": 1, "hidden": [4],
            "eval_slots": 4, "eval_every": 1, "checkpoint_every": 1,
        },
    })
}

#[test]
fn runs_outlive_the_server() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path());
    let (status, run) = server.ask("POST", "/api/runs", &tiny());
    assert_eq!((status, run["state"].is_string()), (201, true), "{run}");
    let id = &run["id"];
    let goes_on = |from: u64| move |run: &Value| run["steps"].as_u64() > Some(from) && run["has_policy"] == true;
    server.until(id, "it learns", goes_on(0));
    // Killed: nothing could be said or saved any more.
    drop(server);

    let server = Server::start(folder.path());
    let killed = server.run(id);
    assert_eq!(killed["state"], "interrupted", "{killed}");
    let (status, run) = server.ask("POST", &format!("/api/runs/{id}/resume"), &json!({}));
    assert_eq!(status, 200, "{run}");
    let later = server.until(id, "it goes on", goes_on(killed["steps"].as_u64().unwrap()));
    assert_eq!((&later["state"], &later["resumes"]), (&json!("running"), &json!(1)));

    #[cfg(unix)]
    {
        server.interrupt();
        let checkpoint = folder.path().join(format!("{id}/checkpoint/progress.json"));
        let saved: Value = serde_json::from_str(&std::fs::read_to_string(checkpoint).unwrap()).unwrap();
        let server = Server::start(folder.path());
        let ended = server.run(id);
        assert_eq!(ended["state"], "interrupted", "{ended}");
        assert_eq!(ended["steps"], saved["steps"], "asked to end, it ends with a checkpoint");
        assert_eq!(server.ask("DELETE", &format!("/api/runs/{id}"), &Value::Null).0, 204);
        assert!(!folder.path().join(id.to_string()).exists());
    }
}
