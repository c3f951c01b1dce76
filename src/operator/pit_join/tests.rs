
use super::testing::*;

#[tokio::test]
async fn dbg_order() {
    let b = batch(vec![("lid", int(0..57)), ("at", us(0..57))]);
    let l = scan("l", partitions(&b, 2, 3), b.schema());
    let f = table("f", vec![("ts", us(0..5)), ("v", int(0..5))]);
    let plan = join(l, vec![f], vec![item("f")]).unwrap();
    let (a, b) = explain(&plan).await;
    println!("{a}\n{b}");
    println!("{:?}", ints(&run(&plan).await, "lid"));
}
