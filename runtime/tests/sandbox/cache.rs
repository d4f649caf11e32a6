//! Compiled once, kept, and never believed without proof.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use orb_runtime::{Artifact, GuestFault, Sandbox, SandboxConfig};
use tempfile::TempDir;

use crate::support::{ECHO, block_on, job, job_on, run, run_in, start, store_in};

fn sandbox_in(folder: &Path) -> Sandbox {
    let config = SandboxConfig {
        cache_dir: Some(folder.to_owned()),
        ..SandboxConfig::default()
    };
    Sandbox::new(config).unwrap()
}

fn compiled_files(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .filter(|path| path.extension().is_some_and(|it| it == "cwasm"))
        .collect()
}

async fn echoes(sandbox: &Sandbox) {
    assert_eq!(run_in(sandbox, job_on(&start(ECHO), "echo")).await.text(), "echo");
}

#[test]
fn after_a_restart_nothing_is_compiled_again() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        echoes(&sandbox_in(folder.path())).await;
        let files = compiled_files(folder.path());
        assert_eq!(files.len(), 1);
        let written = fs::metadata(&files[0]).unwrap();
        let sandbox = sandbox_in(folder.path());
        echoes(&sandbox).await;
        assert_eq!(compiled_files(folder.path()), files);
        // A file that is compiled again is a new one.
        let now = fs::metadata(&files[0]).unwrap();
        assert_eq!(
            std::os::unix::fs::MetadataExt::ino(&written),
            std::os::unix::fs::MetadataExt::ino(&now)
        );
        assert_eq!(sandbox.features().compiled_files_rejected, 0);
    });
}

#[test]
fn after_a_restart_the_javascript_engine_is_there() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let first = sandbox_in(folder.path());
        let guest = crate::javascript::javascript_in(&first, "export default n => n + 1").await;
        assert_eq!(first.features().modules_compiled, 1);
        let second = sandbox_in(folder.path());
        assert_eq!(run_in(&second, job_on(&guest, "1")).await.text(), "2");
        assert_eq!(second.features().modules_compiled, 0);
        assert_eq!(
            compiled_files(folder.path()).len(),
            1,
            "a function itself needs no compiling"
        );
    });
}

#[test]
fn a_tampered_file_is_refused_and_compiled_again() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        echoes(&sandbox_in(folder.path())).await;
        let file = compiled_files(folder.path()).remove(0);
        let good = fs::read(&file).unwrap();
        let flip = |at: usize| {
            let mut bytes = good.clone();
            bytes[at] ^= 1;
            bytes
        };
        let cut = good[..good.len() - 1].to_vec();
        for bad in [flip(0), flip(20), flip(48), flip(good.len() - 1), cut, Vec::new()] {
            fs::write(&file, bad).unwrap();
            let sandbox = sandbox_in(folder.path());
            echoes(&sandbox).await;
            assert_eq!(sandbox.features().compiled_files_rejected, 1);
            assert!(fs::read(&file).unwrap().len() == good.len(), "compiled again");
        }
    });
}

#[test]
fn a_file_of_another_artifact_is_refused() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let sandbox = sandbox_in(folder.path());
        echoes(&sandbox).await;
        let echo = compiled_files(folder.path()).remove(0);
        let other = start("unreachable");
        run_in(&sandbox, job(&other)).await.fault();
        let other = compiled_files(folder.path())
            .into_iter()
            .find(|path| *path != echo)
            .unwrap();
        fs::copy(&other, &echo).unwrap();
        let sandbox = sandbox_in(folder.path());
        echoes(&sandbox).await;
        assert_eq!(sandbox.features().compiled_files_rejected, 1);
    });
}

#[test]
fn a_missing_or_open_key_is_replaced_and_what_it_wrote_is_refused() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let key = folder.path().join("key");
        echoes(&sandbox_in(folder.path())).await;
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
        let first = fs::read(&key).unwrap();

        fs::remove_file(&key).unwrap();
        let sandbox = sandbox_in(folder.path());
        echoes(&sandbox).await;
        assert_eq!(sandbox.features().compiled_files_rejected, 1);
        let second = fs::read(&key).unwrap();
        assert_ne!(first, second);

        fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
        let sandbox = sandbox_in(folder.path());
        echoes(&sandbox).await;
        assert_eq!(sandbox.features().compiled_files_rejected, 1);
        assert_ne!(fs::read(&key).unwrap(), second);
        assert_eq!(fs::metadata(&key).unwrap().permissions().mode() & 0o777, 0o600);
    });
}

#[test]
fn the_cache_on_disk_is_bounded() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let probe = sandbox_in(folder.path());
        echoes(&probe).await;
        let one = fs::metadata(&compiled_files(folder.path())[0]).unwrap().len();
        let config = SandboxConfig {
            cache_dir: Some(folder.path().to_owned()),
            disk_cache_bytes_max: one * 3 + one / 2,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config).unwrap();
        for n in 0..8 {
            let guest = start(&format!("(drop (i32.const {n}))"));
            assert_eq!(run_in(&sandbox, job(&guest)).await.text(), "");
        }
        let files = compiled_files(folder.path());
        let total: u64 = files.iter().map(|path| fs::metadata(path).unwrap().len()).sum();
        assert!(total <= one * 3 + one / 2);
        assert!(files.len() >= 2, "{files:?}");
    });
}

#[test]
fn the_cache_in_memory_is_bounded() {
    block_on(async {
        let config = SandboxConfig {
            memory_cache_bytes_max: 2_000_000,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config).unwrap();
        for n in 0..40 {
            let guest = start(&format!("(drop (i64.const {n}))"));
            assert_eq!(run_in(&sandbox, job(&guest)).await.text(), "");
        }
        let bytes = sandbox.features().compiled_bytes_in_memory;
        assert!(bytes > 0 && bytes <= 2_000_000, "{bytes}");
    });
}

#[test]
fn forgetting_removes_it_everywhere() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let sandbox = sandbox_in(folder.path());
        echoes(&sandbox).await;
        sandbox.forget(&start(ECHO).hash);
        assert_eq!(compiled_files(folder.path()), Vec::<PathBuf>::new());
        assert_eq!(sandbox.features().compiled_bytes_in_memory, 0);
        echoes(&sandbox).await;
    });
}

#[test]
fn simultaneous_first_calls_compile_once() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let sandbox = sandbox_in(folder.path());
        let guest = start(ECHO);
        let calls: Vec<_> = (0..20)
            .map(|n| {
                let (sandbox, job) = (sandbox.clone(), job_on(&guest, format!("{n}")));
                tokio::spawn(async move { run_in(&sandbox, job).await })
            })
            .collect();
        for (n, call) in calls.into_iter().enumerate() {
            assert_eq!(call.await.unwrap().text(), format!("{n}"));
        }
        assert_eq!(sandbox.features().modules_compiled, 1);
    });
}

#[test]
fn an_artifact_that_is_not_what_it_is_named_after_is_never_run() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let good = start(ECHO);
        let bytes = fs::read(&good.path).unwrap();
        let path = folder.path().join("artifact");
        let artifact = Artifact {
            path: path.clone(),
            ..good
        };
        let sandbox = sandbox_in(folder.path());

        for bad in [&bytes[..bytes.len() - 1], b"", b"garbage"] {
            fs::write(&path, bad).unwrap();
            let seen = run_in(&sandbox, job(&artifact)).await;
            assert!(matches!(seen.fault(), GuestFault::Artifact { .. }), "{seen:?}");
            assert!(!seen.started);
        }
        fs::remove_file(&path).unwrap();
        let seen = run_in(&sandbox, job(&artifact)).await;
        assert!(matches!(seen.fault(), GuestFault::Artifact { .. }), "{seen:?}");

        // The failure is not remembered: once the bytes are right it runs.
        fs::write(&path, &bytes).unwrap();
        assert_eq!(run_in(&sandbox, job_on(&artifact, "now")).await.text(), "now");
    });
}

#[test]
fn a_file_that_is_too_large_is_told_so_only_if_it_is_the_artifact() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let admission = orb_runtime::AdmissionLimits {
            module_bytes: 1_000,
            ..Default::default()
        };
        let sandbox = Sandbox::new(SandboxConfig {
            admission,
            ..SandboxConfig::default()
        })
        .unwrap();
        let large = store_in(folder.path(), &[0; 1_001]);
        let seen = run_in(&sandbox, job(&large)).await;
        assert!(matches!(seen.fault(), GuestFault::Compile { .. }), "{seen:?}");
        let named_after_another = Artifact {
            hash: [1; 32],
            ..large
        };
        let seen = run_in(&sandbox, job(&named_after_another)).await;
        assert!(matches!(seen.fault(), GuestFault::Artifact { .. }), "{seen:?}");
    });
}

#[test]
fn what_takes_too_long_to_compile_is_refused() {
    block_on(async {
        let config = SandboxConfig {
            compile_time_max: Duration::ZERO,
            ..SandboxConfig::default()
        };
        let sandbox = Sandbox::new(config).unwrap();
        // Enough work for a good part of a second.
        let function = "(func (result i32) (i32.mul (memory.size) (i32.const 7)))";
        let text = format!(r#"{} (func (export "_start"))"#, function.repeat(5_000));
        let seen = run_in(&sandbox, job(&crate::support::command(&text))).await;
        assert!(matches!(seen.fault(), GuestFault::Compile { .. }), "{seen:?}");
        assert!(!seen.started);
        // It is not held against the artifact: another time the machine may have more time.
        assert_eq!(sandbox.features().compiled_bytes_in_memory, 0);
    });
}

#[test]
fn what_does_not_run_here_says_why() {
    block_on(async {
        let folder = TempDir::new().unwrap();
        let text = r#"(module (import "env" "launch" (func)) (memory (export "memory") 1) (func (export "_start")))"#;
        let seen = run(job(&store_in(folder.path(), &crate::support::wat(text)))).await;
        let GuestFault::Refused { message } = seen.fault() else {
            panic!("{seen:?}")
        };
        assert!(message.contains("env.launch"), "{message}");
        assert!(!seen.started);
    });
}

#[test]
fn a_call_that_may_use_more_memory_than_the_host_gives_is_refused() {
    block_on(async {
        let job = crate::support::with_limits(job(&start(ECHO)), |it| it.memory_bytes = 2 << 30);
        assert!(matches!(run(job).await.fault(), GuestFault::Refused { .. }));
    });
}
