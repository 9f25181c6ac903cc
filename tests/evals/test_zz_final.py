import time
from tests.evals.test_demo_answers import shop
from tests.evals.demo_answers import *
async def test_final(shop):
    for n,q in (("odd",demo_questions()[0::2]),("even",demo_questions()[1::2]),("fresh",fresh_questions())):
        print(n, await shop.score(q))
    for n in ("outside.yaml","fresh.yaml"):
        o=[(q,await shop.ask(q)) for q in outside(n)]; print(n,sum(x.did=="person" for q,x in o),len(o),[(q,x.reply.text) for q,x in o if x.did!="person"])
        r=[(a,await shop.ask(*a.messages)) for a in acts(n.replace("outside","acts"))]; print("acts",sum(x.did==a.expected for a,x in r),len(r))
    for q in ["What does it cost to rent an e-bike for a day?","Habt ihr am Samstag offen?","Ich möchte eine Probefahrt mit einem Lastenrad machen, meine Mail ist eva.huber@example.org","Do you sell helicopters?"]:
        o=await shop.ask(q); print(q,'->',o.did,repr(o.reply.text),[c['quote'] for c in o.reply.citations])
