# victim: 200 claims/s open loop, measure latency alone and beside a noisy tenant that sends 10x its quota
import asyncio,json,os,time,sys,http.client,subprocess,socket
BIN='./scrip'; PK='platform-key-of-the-noisy'
def port():
    s=socket.socket(); s.bind(('127.0.0.1',0)); p=s.getsockname()[1]; s.close(); return p
P=port()
QUOTA=int(os.environ.get('QUOTA','200'))
env=dict(os.environ,SCRIP_PLATFORM_KEY=PK,SCRIP_QUOTA__REQUESTS_PER_SECOND=str(QUOTA))
store=os.environ.get('STORE') or 'sqlite:./bench-out/noisy.db'
proc=subprocess.Popen([BIN,'serve','--listen',f'127.0.0.1:{P}','--store',store],env=env,stdout=subprocess.DEVNULL,stderr=subprocess.DEVNULL)
def req(m,path,key,body=None):
    c=http.client.HTTPConnection('127.0.0.1',P,timeout=10); h={'authorization':'Bearer '+key}
    if body is not None: h['content-type']='application/json'
    c.request(m,path,body,h); r=c.getresponse(); return r.status,r.read()
for _ in range(100):
    try:
        if req('GET','/readyz','')[0]==200: break
    except OSError: time.sleep(.1)
def shop():
    t=json.loads(req('POST','/v1/tenants',PK,json.dumps({'name':'n'}))[1])['id']
    k=json.loads(req('POST',f'/v1/tenants/{t}/api-keys',PK,json.dumps({'name':'d','scope':'OPERATOR'}))[1])['secret']
    tp=json.loads(req('POST','/v1/coupon-templates',k,json.dumps({'name':'t','benefit':{'type':'AMOUNT_OFF','amount':1},'validity':{'type':'RELATIVE','days':30},'limit_per_member':1000}))[1])['id']
    return k,tp
V,N=shop(),shop()
seq=0
def bytes_of(s):
    global seq; seq+=1
    b=json.dumps({'member_id':f'm-{seq}'}).encode()
    return f'POST /v1/coupon-templates/{s[1]}/claims HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {s[0]}\r\ncontent-type: application/json\r\ncontent-length: {len(b)}\r\n\r\n'.encode()+b
async def one(r,w,s):
    w.write(bytes_of(s)); head=await r.readuntil(b'\r\n\r\n'); n=0
    for l in head.split(b'\r\n'):
        if l.lower().startswith(b'content-length:'): n=int(l[15:])
    if n: await r.readexactly(n)
    return int(head[9:12])
async def client(s,rate,conns,secs,out):
    cs=[await asyncio.open_connection('127.0.0.1',P) for _ in range(conns)]; free=asyncio.Queue(); [free.put_nowait(c) for c in cs]
    end=time.perf_counter()+secs; due=time.perf_counter(); tasks=[]
    async def go(due):
        c=await free.get(); st=await one(*c,s); free.put_nowait(c); out.append((st,time.perf_counter()-due))
    while due<end:
        d=due-time.perf_counter()
        if d>0: await asyncio.sleep(d)
        tasks.append(asyncio.create_task(go(due))); due+=1/rate
    await asyncio.gather(*tasks)
    for _,w in cs: w.close()
def p(o,q): o=sorted(x for s,x in o if s==201); return o[int(len(o)*q)]*1e3 if o else 0
role=sys.argv[1] if len(sys.argv)>1 else 'main'
if role=='noise': pass
async def main():
    for i in range(3):
        a=[]; await client(V,QUOTA*0.75,16,8,a)
        b=[]; n=[]; await asyncio.gather(client(V,QUOTA*0.75,16,8,b),client(N,QUOTA*10,32,8,n))
        from collections import Counter
        print(f'round {i}: alone P50 {p(a,.5):.2f} P95 {p(a,.95):.2f} P99 {p(a,.99):.2f} ms ({Counter(s for s,_ in a)}); beside {len(n)/8:.0f}/s of another tenant P50 {p(b,.5):.2f} P95 {p(b,.95):.2f} P99 {p(b,.99):.2f} ms ({Counter(s for s,_ in b)}); it was answered {dict(Counter(s for s,_ in n))}',flush=True)
asyncio.run(main()); proc.terminate(); proc.wait()
