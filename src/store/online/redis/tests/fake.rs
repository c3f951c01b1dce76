//! Answers that a real server gives at unlucky moments only, from one that gives them when asked to.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};

use parking_lot::Mutex;

use super::*;

enum Answer {
    Whole(String),
    /// So much of it, then the connection ends.
    Cut(String),
}

/// What the server was told, one line of words each.
type Told = Arc<Mutex<Vec<String>>>;

/// A server that answers by `answer`, which is given the words and how often their command came before.
fn server(answer: impl Fn(&[String], usize) -> Answer + Send + Sync + 'static) -> (String, Told) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("redis://{}/0", listener.local_addr().unwrap());
    let (told, answer) = (Told::default(), Arc::new(answer));
    let all = Arc::clone(&told);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let (answer, told) = (Arc::clone(&answer), Arc::clone(&all));
            std::thread::spawn(move || serve(stream.unwrap(), &*answer, &told));
        }
    });
    (url, told)
}

fn serve(mut stream: TcpStream, answer: &(dyn Fn(&[String], usize) -> Answer + Send + Sync), told: &Told) {
    let mut reader = BufReader::new(stream.try_clone().unwrap());
    while let Some(words) = command(&mut reader) {
        if matches!(words[0].as_str(), "CLIENT" | "SELECT") {
            stream.write_all(b"+OK\r\n").unwrap();
            continue;
        }
        let before = {
            let mut told = told.lock();
            told.push(words.join(" "));
            told.iter().filter(|t| t.split(' ').next() == Some(&words[0])).count() - 1
        };
        match answer(&words, before) {
            Answer::Whole(text) => stream.write_all(text.as_bytes()).unwrap(),
            Answer::Cut(text) => {
                stream.write_all(text.as_bytes()).unwrap();
                return;
            }
        }
    }
}

fn command(reader: &mut impl BufRead) -> Option<Vec<String>> {
    let number = |reader: &mut dyn BufRead| {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        line.trim_end().get(1..)?.parse::<usize>().ok()
    };
    let count = number(reader)?;
    let mut words = vec![];
    for _ in 0..count {
        let mut word = vec![0; number(reader)? + 2];
        reader.read_exact(&mut word).ok()?;
        word.truncate(word.len() - 2);
        words.push(String::from_utf8_lossy(&word).into_owned());
    }
    Some(words)
}

fn bulk(text: &str) -> String {
    format!("${}\r\n{text}\r\n", text.len())
}

async fn store(url: &str) -> Arc<dyn OnlineStore> {
    open(url, &OnlineSettings::default()).await.unwrap()
}

fn count(told: &Told, word: &str) -> usize {
    told.lock().iter().filter(|t| t.split(' ').next() == Some(word)).count()
}

#[tokio::test]
async fn a_script_that_is_forgotten_again_and_again_is_sent_whole() {
    let (url, told) = server(|words, _| {
        Answer::Whole(match words[0].as_str() {
            "EVALSHA" => "-NOSCRIPT No matching script. Please use EVAL.\r\n".into(),
            "SCRIPT" => bulk("hash"),
            "EVAL" => ":1\r\n".into(),
            _ => "$-1\r\n".into(),
        })
    });
    let (store, v) = (store(&url).await, view(1));
    assert_eq!(put(&*store, &v, 7, vec![offer(1, 1, 1, 1, 1)]).await, (1, 0));
    assert!(store.advance_watermark(&v, 7, None, 2).await.unwrap());
    let whole: Vec<String> = told.lock().iter().filter(|t| t.starts_with("EVAL ")).cloned().collect();
    assert_eq!(whole.len(), 2);
    assert!(whole[0].contains("redis.call('MSET'") && whole[0].contains(" 2 remige:w-1:00000001:gens "), "{}", whole[0]);
    assert!(whole[1].contains("redis.call('SET', KEYS[2], ARGV[3])") && whole[1].ends_with(" 7  2 0"), "{}", whole[1]);
}

#[tokio::test]
async fn an_answer_that_breaks_off_is_asked_for_again() {
    let text = bulk(&serde_json::to_string(&pointer(7)).unwrap());
    for (cuts, reads) in [(1, Ok(())), (usize::MAX, Err(Kind::Unavailable))] {
        let text = text.clone();
        let (url, told) = server(move |words, before| match (words[0].as_str(), words.len()) {
            ("MGET", 2) => Answer::Whole(format!("*1\r\n{text}")),
            ("MGET", _) if before <= cuts => Answer::Cut(format!("*3\r\n{}", &text[..text.len() / 2])),
            ("MGET", _) => Answer::Whole(format!("*3\r\n{text}{}{}", bulk("1"), bulk("a row"))),
            ("EVALSHA", _) if before < cuts => Answer::Cut(":".into()),
            _ => Answer::Whole(":1\r\n".into()),
        });
        let (store, v, k) = (store(&url).await, view(1), key(1));
        let got = store.get_batch(&[KeysOf { view: &v, keys: vec![k.stored()] }]).await;
        assert_eq!(got.as_ref().map(|_| ()).map_err(Error::kind), reads, "{got:?}");
        match got {
            Ok(got) => assert_eq!(got[0].rows, [Some(Bytes::from("a row"))]),
            Err(e) => assert!(e.message().contains(&url) && e.message().contains("broke off"), "{e}"),
        }
        // What must not be done twice is told that it may have been done.
        let moved = store.advance_watermark(&v, 7, None, 2).await;
        assert_eq!(moved.as_ref().map_err(Error::kind), reads.as_ref().map(|()| &true).map_err(|k| *k), "{moved:?}");
        let steps: Vec<String> = told.lock().iter().filter(|t| t.starts_with("EVALSHA")).cloned().collect();
        assert!(steps[0].ends_with(" 2 0") && steps[1..].iter().all(|s| s.ends_with(" 2 1")) && steps.len() > 1, "{steps:?}");
    }
}

#[tokio::test]
async fn a_busy_server_is_waited_for() {
    let (url, told) = server(|_, before| match before {
        0 | 1 => Answer::Whole("-BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.\r\n".into()),
        _ => Answer::Whole(":1\r\n".into()),
    });
    let (store, v) = (store(&url).await, view(1));
    assert_eq!(put(&*store, &v, 7, vec![offer(1, 1, 1, 1, 1)]).await, (1, 0));
    assert_eq!(count(&told, "EVALSHA"), 3);
}

#[tokio::test]
async fn what_the_server_refuses_for_a_while_is_unavailable() {
    for line in ["BUSY x", "LOADING x", "MASTERDOWN x", "TRYAGAIN x", "CLUSTERDOWN x", "READONLY x", "MISCONF x", "NOREPLICAS x"] {
        let (url, _) = server(move |_, _| Answer::Whole(format!("-{line}\r\n")));
        let (store, v, k) = (store(&url).await, view(1), key(1));
        let read = store.get_batch(&[KeysOf { view: &v, keys: vec![k.stored()] }]).await.unwrap_err();
        for e in [read, store.put(&v, 7, vec![offer(1, 1, 1, 1, 1)]).await.unwrap_err()] {
            assert!(e.kind() == Kind::Unavailable && e.message().contains(&url) && e.hint().is_some(), "{line}: {e}");
        }
    }
}
