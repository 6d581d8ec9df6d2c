use crate::convolutions::{Shape, directions};
use crate::harness::time;
use syncbn_ir::schedule::{Direct, Winograd};
use syncbn_ir::{DType, Schedule};
#[test]
fn timing() {
    let n: usize = std::env::var("TN").map_or(32, |v| v.parse().unwrap());
    let only = std::env::var("TF").unwrap_or_default();
    let set = std::env::var("TS").unwrap_or("sbn".into());
    let layers: Vec<(usize, usize, usize, usize, usize)> = match set.as_str() {
        "sbn" => vec![
            (3, 32, 32, 3, 1),
            (32, 64, 32, 3, 2),
            (64, 64, 16, 3, 1),
            (64, 128, 16, 3, 2),
            (128, 128, 8, 3, 1),
            (128, 256, 8, 3, 2),
            (256, 256, 4, 3, 1),
            (32, 64, 32, 1, 2),
            (128, 256, 8, 1, 2),
        ],
        "p" => vec![
            (2048, 512, 7, 1, 1),
            (512, 2048, 7, 1, 1),
            (1024, 256, 14, 1, 1),
            (256, 1024, 14, 1, 1),
            (64, 256, 56, 1, 1),
            (256, 64, 56, 1, 1),
            (1024, 2048, 14, 1, 2),
        ],
        "q" => vec![(256, 256, 28, 3, 2), (512, 512, 14, 3, 2)],
        "w" => vec![
            (64, 64, 56, 3, 1),
            (128, 128, 28, 3, 1),
            (256, 256, 14, 3, 1),
            (512, 512, 7, 3, 1),
            (128, 128, 56, 3, 2),
            (256, 256, 28, 3, 2),
            (512, 512, 14, 3, 2),
        ],
        "r50" => vec![
            (3, 64, 224, 7, 2),
            (64, 64, 56, 1, 1),
            (64, 64, 56, 3, 1),
            (64, 256, 56, 1, 1),
            (256, 64, 56, 1, 1),
            (128, 128, 56, 3, 2),
            (128, 128, 28, 3, 1),
            (512, 128, 28, 1, 1),
            (128, 512, 28, 1, 1),
            (256, 256, 14, 3, 1),
            (1024, 256, 14, 1, 1),
            (256, 1024, 14, 1, 1),
            (512, 512, 7, 3, 1),
            (2048, 512, 7, 1, 1),
            (512, 2048, 7, 1, 1),
        ],
        _ => vec![],
    };
    for (c, k, h, ks, st) in layers {
        let shape = Shape::new(c, k, &[h, h], ks, st, ks / 2);
        let o = h / st;
        let px = if o % 14 == 0 || o == 7 { 14 } else { 8 };
        let mut list: Vec<(String, Schedule)> = vec![];
        let rows = (65536 / (c * h * st)).clamp(1, o);
        let fw = Schedule::Direct(Direct {
            lanes: 16,
            pixels: px,
            vectors: 2,
            rows,
        });
        let rw = (32768 / (c.max(8) * o * st * st)).max(1);
        let bw = Schedule::Direct(Direct {
            lanes: 16,
            pixels: 8,
            vectors: 2,
            rows: rw,
        });
        list.push(("direct".into(), fw));
        list.push(("directw".into(), bw));
        if set == "p" {
            list.clear();
            for r in [1usize, 4, 9, 18, 37, 74] {
                let rows = (r * 64 / o).max(1);
                list.push((
                    format!("dw px{}", rows * o),
                    Schedule::Direct(Direct {
                        lanes: 16,
                        pixels: 8,
                        vectors: 2,
                        rows,
                    }),
                ));
            }
            for r in [64usize, 128, 256, 512] {
                for p in [7usize, 14] {
                    let rows = (r / o).max(1);
                    list.push((
                        format!("df px{} p{p}", rows * o),
                        Schedule::Direct(Direct {
                            lanes: 16,
                            pixels: p,
                            vectors: 2,
                            rows,
                        }),
                    ));
                }
            }
        }
        if ks == 3 && st == 1 && c >= 16 {
            let total = n * (h.div_ceil(4)).pow(2);
            for tiles in [16usize, 32, 64, 128] {
                if tiles <= total.max(16) {
                    for ch in [false, true] {
                        list.push((
                            format!("wino t{tiles} {ch}"),
                            Schedule::Winograd(Winograd {
                                lanes: 16,
                                pixels: 8,
                                vectors: 2,
                                tiles,
                                chunked: ch,
                            }),
                        ));
                    }
                }
            }
        }
        for (name, s) in list {
            for (i, case) in directions(&shape, DType::F32, s, c == 3, 1.0)
                .into_iter()
                .enumerate()
            {
                if i == 1 || (i == 2 && c == 3) {
                    continue;
                }
                if name.starts_with("dw") && i != 3 || name.starts_with("df") && i == 3 {
                    continue;
                }
                if name == "direct" && i == 3 || name == "directw" && i != 3 {
                    continue;
                }
                if !only.is_empty() && !format!("{name} {}", case.name).contains(&only) {
                    continue;
                }
                if let Schedule::Winograd(w) = s {
                    if w.chunked && i == 3 && w.tiles < n * (h.div_ceil(4)).pow(2) {
                        continue;
                    }
                }
                let (ms, _) = time(&case, n);
                let macs = (n * o * o * c * k * ks * ks) as f64;
                println!(
                    "{c:4}->{k:4} @{h:3} k{ks}s{st} {:16} {name:14} {ms:8.3} ms {:7.1} GMAC/s",
                    &case.name[..case.name.find(" f32").unwrap()],
                    macs / ms / 1e6
                );
            }
        }
    }
}
