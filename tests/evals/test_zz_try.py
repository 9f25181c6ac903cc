import time
from tests.evals.test_demo_answers import shop
async def test_try(shop):
    for q in ["What does it cost to rent an e-bike for a day?","Do you deliver to Switzerland?","How much is the deposit for an e-bike?","What happens if I bring the bike back late?","What time do you close on Saturday?","How long is the warranty on a used bike?",
      "Was kostet ein großer Service?","Wie lange dauert ein kleiner Service?","Habt ihr am Samstag offen?","Wann ist Betriebsurlaub?","Was kostet es, die Kette zu tauschen?","Kann ich meinen Termin kostenlos absagen?","Wie lange ist die Laufzeit beim Leasing?","Wo kann ich parken?","Do you accept cheques?","Can I pay in instalments?","Was kostet die Fahrradcodierung?"]:
        t=time.process_time(); o=await shop.ask(q); 
        print(round(time.process_time()-t,2),q,'\n     ',o.did,o.reply.agent,repr(o.reply.text),[c['quote'] for c in o.reply.citations])
