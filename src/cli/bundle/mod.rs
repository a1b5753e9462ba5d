//! `iris support-bundle`

mod archive;
mod machine;
mod redact;

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use iris_wal::disk::Disk;
use iris_wal::io::RealDisk;
use serde_json::json;

use super::args::SupportBundle;
use super::exit::{Exit, Failure};
use super::text::{size, utc};
use super::token::unix_s;
use super::{http, print};
use crate::config::{self, Data, Host, Layers, Sources};
use crate::preflight;
use archive::Archive;
use redact::{Places, Redactor};

const INFALLIBLE: &str = "writing to a String cannot fail";
/// Time for one answer of the server.
const ANSWER_MAX: Duration = Duration::from_secs(10);
/// Time for `iris-tune check`.
const TUNE_MAX: Duration = Duration::from_secs(30);
/// Between the two looks at the metrics, at most.
const INTERVAL_MAX: Duration = Duration::from_secs(60);
/// Bytes of a log's end that are taken.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Bytes of a data directory, above which its log is not read to be counted.
const COUNTED_BYTES_MAX: u64 = 4 << 30;

pub(super) fn run(args: SupportBundle) -> anyhow::Result<Exit> {
    Ok(bundle(&args)?)
}

fn bundle(args: &SupportBundle) -> Result<Exit, Failure> {
    let usage = |text: String| Failure::new(Exit::Usage, text);
    if args.interval.0 > INTERVAL_MAX {
        return Err(usage("--interval: from 0s to 1m; leave it out for 5s".to_owned()));
    }
    let host = Host::detect();
    let now = unix_s();
    let is_plain = |c: &char| c.is_ascii_alphanumeric() || *c == '-';
    let name: String = host.name.chars().filter(is_plain).take(40).collect();
    let stamp: String = utc(now).chars().filter(|c| !"-:".contains(*c)).collect();
    let root = format!("iris-support-{name}-{stamp}");
    let out = args.out.clone().unwrap_or_else(|| PathBuf::from(format!("{root}.tar.gz")));
    let failed = |error: std::io::Error| {
        let cause = format!("{}: failed to write the bundle: {error}", out.display());
        usage(format!(
            "{cause}; name a file that does not exist, in a writable directory, with --out"
        ))
    };
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o600).open(&out).map_err(failed)?;
    let mut bundle = Bundle::new(args, &host);
    bundle.gather(args);
    let written = bundle.write(file, &root, now).inspect_err(|_| {
        let _ = fs::remove_file(&out);
    });
    let missing = bundle.missing.len();
    let bytes = written.map_err(failed)?;
    print(&format!(
        "{}: {}, {} files, {missing} things were not to be had (MANIFEST.txt says which and why)\n\
         Look into it before you send it: it names hosts and addresses.\n",
        out.display(),
        size(bytes),
        bundle.files.len() + 1,
    ));
    Ok(Exit::Ok)
}

/// What is gathered.
struct Bundle {
    redactor: Redactor,
    /// The configuration, as far as it can be read.
    layers: Layers,
    places: Places,
    data_dir: PathBuf,
    /// Name, what it is, content.
    files: Vec<(String, String, String)>,
    /// Name and why it is not there.
    missing: Vec<(String, String)>,
}

impl Bundle {
    fn new(args: &SupportBundle, host: &Host) -> Self {
        let mut sources = Sources::with_env(args.config.clone(), args.dev);
        sources
            .flags
            .extend(args.data_dir.clone().map(|dir| ("node", "data_dir", "--data-dir", dir)));
        let base = args.config.as_deref().and_then(Path::parent).map(Path::to_owned);
        let mut bundle = Self {
            redactor: Redactor::default(),
            layers: Layers::defaults(args.dev),
            places: Places {
                base: base.unwrap_or_default(),
                credentials: host.credentials.clone(),
            },
            data_dir: PathBuf::new(),
            files: Vec::new(),
            missing: Vec::new(),
        };
        bundle.configuration(&sources);
        bundle
    }

    /// Reads the configuration first: it says what is secret.
    fn configuration(&mut self, sources: &Sources) {
        let name = "config.json";
        match config::as_written(sources) {
            Err(problems) => {
                self.missing.push((name.to_owned(), problems.to_string()));
            }
            Ok((layers, problems)) => {
                self.layers = layers;
                // What is wrong is told by place and key: what was written there may be a secret in the wrong place.
                let told: Vec<_> = problems
                    .iter()
                    .map(|problem| json!({ "key": problem.key, "at": format!("{:?}", problem.origin) }))
                    .collect();
                let is_named = sources.file.is_some() || sources.dev;
                let shown = json!({
                    "file": sources.file.as_ref().map(|file| file.display().to_string()),
                    "dev": sources.dev,
                    "problems": told,
                    "config": redact::config(&self.layers, &self.places),
                });
                let what = match is_named {
                    true => "the configuration in effect, without secrets",
                    false => "the defaults and the environment: no --config was given",
                };
                self.redactor.learn_config(&self.layers, &self.places);
                self.put(name, what, Ok(format!("{shown:#}\n")));
            }
        }
        let dir = self.layers.value("node", "data_dir");
        if let Data::Text(text) = &dir.data {
            self.data_dir = match dir.origin {
                config::Origin::File { .. } => self.places.base.join(text),
                _ => PathBuf::from(text),
            };
        }
        for name in ["dev.key", "dev-key.pem"] {
            self.redactor.learn_file(&self.data_dir.join(name));
        }
    }

    fn put(&mut self, name: &str, what: &str, content: Result<String, String>) {
        match content {
            Ok(text) => {
                let text = self.redactor.scrub(&text);
                self.files.push((name.to_owned(), what.to_owned(), text));
            }
            Err(why) => {
                let why = self.redactor.scrub(&why);
                self.missing.push((name.to_owned(), why));
            }
        }
    }

    fn gather(&mut self, args: &SupportBundle) {
        if let Some(file) = &args.admin_token {
            self.redactor.learn_file(file);
        }
        let protocol = iris_proto::wire::VERSION;
        let version =
            format!("iris {} ({}), wire protocol {protocol}\n", crate::VERSION, crate::REVISION);
        self.put("version.txt", "this command's version", Ok(version));
        let admin = self.admin(args);
        let began = Instant::now();
        self.pages(&admin);
        self.machine();
        self.process();
        self.data();
        if let Some(log) = &args.log {
            let text = tail(log).map(|text| redact::without_users(&text));
            self.put("server.log", "the end of the log, without names of users", text);
        } else {
            self.missing.push(("server.log".to_owned(), "no --log was given".to_owned()));
        }
        self.put("tune.txt", "what iris-tune check says", tune());
        let Ok(admin) = admin else { return };
        std::thread::sleep(args.interval.0.saturating_sub(began.elapsed()));
        let again = admin.get("/metrics");
        self.put("metrics-2.txt", "/metrics, some seconds later", again);
    }

    /// The first of the node's admin addresses that answers.
    fn admin(&self, args: &SupportBundle) -> Result<Admin, String> {
        let mut tried = Vec::new();
        let token = match &args.admin_token {
            Some(file) => http::token(Some(file)),
            None => self.admin_token(),
        };
        let token = token.unwrap_or_else(|failure| {
            tried.push(failure.to_string());
            None
        });
        let mut addresses = Vec::new();
        match &args.admin {
            Some(admin) => {
                addresses.push(http::address(admin).map_err(|failure| failure.to_string())?)
            }
            None => {
                if let Data::Text(text) = &self.layers.value("listen", "admin").data
                    && !text.ends_with(":0")
                    && let Ok(address) = http::address(&here(text))
                {
                    addresses.push(address);
                }
                let socket = match &self.layers.value("listen", "admin_socket").data {
                    Data::Text(text) if !["auto", "none"].contains(&text.as_str()) => {
                        self.places.base.join(text)
                    }
                    _ => self.data_dir.join("admin.sock"),
                };
                if socket.exists() {
                    addresses.push(format!("{}{}", http::SOCKET, socket.display()));
                }
            }
        }
        // The socket asks for no token, and is this node's and no other's on the same port.
        addresses.sort_by_key(|address| !address.starts_with(http::SOCKET));
        for address in addresses {
            let admin = Admin { address, token: token.clone() };
            match admin.get("/status") {
                Ok(_) => return Ok(admin),
                Err(why) => tried.push(why),
            }
        }
        if tried.is_empty() {
            tried.push("listen.admin has port 0 and there is no socket; give --admin".to_owned());
        }
        Err(tried.join("; "))
    }

    fn admin_token(&self) -> Result<Option<String>, Failure> {
        let value = self.layers.value("listen", "admin_token");
        let path = match &value.data {
            Data::Text(text) if !text.is_empty() => self.places.find(text, &value.origin),
            _ => None,
        };
        http::token(path.as_deref())
    }

    fn pages(&mut self, admin: &Result<Admin, String>) {
        let pages = [
            ("status.json", "/status"),
            ("health.json", "/health?verbose"),
            ("readyz.txt", "/readyz"),
            ("metrics-1.txt", "/metrics"),
        ];
        for (name, page) in pages {
            let said = admin.as_ref().map_err(|why| format!("the server does not answer: {why}"));
            let said = said.and_then(|admin| admin.get_any(page));
            self.put(name, page, said);
        }
    }

    fn machine(&mut self) {
        for (name, path) in machine::FILES {
            self.put(name, path, machine::read(Path::new(path)));
        }
        self.put("machine/sysctl.txt", "settings of the kernel", Ok(machine::sysctls()));
        let ring = match preflight::check_uring() {
            Ok(()) => "this process could make an io_uring\n".to_owned(),
            Err(failure) => format!("this process could make no io_uring: {failure}\n"),
        };
        let own = machine::read(Path::new("/proc/self/status")).unwrap_or_default();
        let own = own.lines().filter(|line| line.starts_with("Seccomp") || line.starts_with("Cap"));
        let own: String = own.map(|line| format!("{line}\n")).collect();
        let limits = machine::read(Path::new("/proc/self/limits")).unwrap_or_default();
        let text = format!("{ring}\nof this process:\n{own}\n{limits}");
        self.put("machine/io_uring.txt", "whether io_uring works here", Ok(text));
    }

    /// The server's process, by the id in its directory.
    fn process(&mut self) {
        let proc = match self.find_process() {
            Ok(proc) => proc,
            Err(why) => return self.missing.push(("process/".to_owned(), why)),
        };
        for (name, file) in machine::PROCESS_FILES {
            let path = proc.join(file);
            self.put(name, &path.display().to_string(), machine::read(&path));
        }
        let command = machine::read(&proc.join("cmdline")).map(|text| text.replace('\0', "\n"));
        self.put("process/command.txt", "its arguments", command);
        self.put("process/threads.txt", "its threads", machine::threads(&proc));
        self.put("process/descriptors.txt", "its open files, by kind", machine::descriptors(&proc));
        self.put("process/cgroups.txt", "what bounds it", machine::cgroups(&proc));
    }

    fn find_process(&self) -> Result<PathBuf, String> {
        let lock = self.data_dir.join("LOCK");
        let text = machine::read(&lock)?;
        let pid: u32 =
            text.trim().parse().map_err(|_| format!("{}: no process id in it", lock.display()))?;
        let proc = PathBuf::from(format!("/proc/{pid}"));
        // The id may be another program's by now.
        let comm = machine::read(&proc.join("comm"));
        let comm = comm.map_err(|_| format!("process {pid} of {} does not run", lock.display()))?;
        match comm.starts_with("iris") {
            true => Ok(proc),
            false => {
                Err(format!("process {pid} of {} is no server of Iris: none runs", lock.display()))
            }
        }
    }

    fn data(&mut self) {
        let dir = self.data_dir.clone();
        let listed = machine::list(&dir);
        let bytes = listed.as_ref().map_or(0, |(_, bytes)| *bytes);
        let what = format!("what lies in {}; nothing of it was opened", dir.display());
        self.put("data/files.txt", &what, listed.map(|(text, _)| text));
        let counted = match bytes {
            0 => Err(format!("{}: there is nothing in it", dir.display())),
            1..=COUNTED_BYTES_MAX => count(&dir),
            _ => Err(format!(
                "{} are much to read; run iris wal stat {}",
                size(bytes),
                dir.display()
            )),
        };
        self.put("data/wal-stat.txt", "iris wal stat", counted);
        self.put("data/mount.txt", "the mount that it is on", machine::mount(&dir));
        let free = RealDisk.free_bytes(&dir);
        let free =
            free.map(|bytes| format!("{bytes} bytes free\n")).map_err(|error| error.to_string());
        self.put("data/disk.txt", "free space on its disk", free);
    }

    fn manifest(&self, now: u64) -> String {
        let mut out = format!(
            "iris support-bundle, {}, iris {} ({})\n\nIn it:\n",
            utc(now),
            crate::VERSION,
            crate::REVISION
        );
        for (name, what, content) in &self.files {
            writeln!(out, "  {name:<30} {:>9}  {what}", size(content.len() as u64))
                .expect(INFALLIBLE);
        }
        out += "\nNot to be had:\n";
        for (name, why) in &self.missing {
            writeln!(out, "  {name:<30} {}", why.trim().replace('\n', "; ")).expect(INFALLIBLE);
        }
        out += "\nNever in it: keys, tokens, passwords, certificates, messages, names of users.\n";
        out
    }

    /// The bytes written.
    fn write(&self, file: File, root: &str, now: u64) -> std::io::Result<u64> {
        let mut archive = Archive::new(file, now);
        let manifest = self.redactor.scrub(&self.manifest(now));
        archive.file(&format!("{root}/MANIFEST.txt"), manifest.as_bytes())?;
        for (name, _, content) in &self.files {
            archive.file(&format!("{root}/{name}"), content.as_bytes())?;
        }
        let mut file = archive.finish()?;
        file.flush()?;
        file.sync_all()?;
        Ok(file.metadata()?.len())
    }
}

/// A server that answers.
struct Admin {
    address: String,
    token: Option<String>,
}

impl Admin {
    fn get(&self, page: &str) -> Result<String, String> {
        let reply = self.ask(page)?;
        match reply.status {
            200 => Ok(reply.body),
            401 => Err(format!("{}: it asks for its token: --admin-token", self.address)),
            other => Err(format!("{}: it answered {other} to {page}", self.address)),
        }
    }

    /// Also what comes with another status: that is an answer, too.
    fn get_any(&self, page: &str) -> Result<String, String> {
        self.ask(page).map(|reply| reply.body)
    }

    fn ask(&self, page: &str) -> Result<http::Reply, String> {
        let reply = http::ask("GET", &self.address, page, self.token.as_deref(), ANSWER_MAX);
        reply.map_err(|why| format!("{}: {why}", self.address))
    }
}

/// The end of a file.
fn tail(path: &Path) -> Result<String, String> {
    let failed = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut file = File::open(path).map_err(failed)?;
    let bytes = file.metadata().map_err(failed)?.len();
    file.seek(SeekFrom::Start(bytes.saturating_sub(LOG_BYTES_MAX))).map_err(failed)?;
    let mut out = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut out).map_err(failed)?;
    let text = String::from_utf8_lossy(&out).into_owned();
    Ok(match bytes > LOG_BYTES_MAX {
        // A line whose beginning is missing may hide what it says.
        true => text.split_once('\n').map_or(String::new(), |(_, rest)| rest.to_owned()),
        false => text,
    })
}

fn count(dir: &Path) -> Result<String, String> {
    let mut out = Vec::new();
    let failed = |error: std::io::Error| format!("{}: {error}", dir.display());
    iris_wal::tool::stat(dir, &mut out, false).map_err(failed)?;
    Ok(String::from_utf8_lossy(&out).into_owned())
}

/// What `iris-tune check` says, if it is beside this program or in PATH.
fn tune() -> Result<String, String> {
    let beside = std::env::current_exe().ok().map(|path| path.with_file_name("iris-tune"));
    let program = beside.filter(|path| path.exists()).unwrap_or_else(|| PathBuf::from("iris-tune"));
    let failed = |error: std::io::Error| format!("{}: {error}", program.display());
    let mut command = Command::new(&program);
    command.arg("check").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(failed)?;
    let mut said = child.stdout.take().expect("its output is ours");
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = Vec::new();
        let _ = said.read_to_end(&mut text);
        let _ = sender.send(text);
    });
    let text = receiver.recv_timeout(TUNE_MAX);
    let _ = child.kill();
    let _ = child.wait();
    let text = text.map_err(|_| format!("it took longer than {} s", TUNE_MAX.as_secs()))?;
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// An address that this machine reaches itself by: that of any interface is none.
fn here(address: &str) -> String {
    address
        .strip_prefix("0.0.0.0:")
        .map_or_else(|| address.to_owned(), |port| format!("127.0.0.1:{port}"))
}
