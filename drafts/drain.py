import http.client,json,os,subprocess,sys,time,re,threading,asyncio,socket
BIN='./scrip'; URL=os.environ['PG_URL']+'/drain'; EVENTS=int(os.environ.get('EVENTS','1000000')); JOBS=int(os.environ.get('JOBS','100000'))
PK='platform-key-of-the-drain'
def port():
    s=socket.socket(); s.bind(('127.0.0.1',0)); p=s.getsockname()[1]; s.close(); return p
class Srv:
    def __init__(self,**env):
        self.p=port(); e=dict(os.environ,SCRIP_PLATFORM_KEY=PK,**env)
        self.proc=subprocess.Popen([BIN,'serve','--listen',f'127.0.0.1:{self.p}','--store',URL],env=e,stdout=subprocess.DEVNULL,stderr=open('./drain.log','a'))
        for _ in range(300):
            try:
                if self.get('/readyz')[0]==200: break
            except OSError: pass
            time.sleep(.1)
    def req(self,m,path,key,body=None,ct='application/json'):
        c=http.client.HTTPConnection('127.0.0.1',self.p,timeout=120); h={'authorization':'Bearer '+key}
        if body is not None: h['content-type']=ct
        c.request(m,path,body,h); r=c.getresponse(); d=r.read(); return r.status,d
    def get(self,path,key=''): return self.req('GET',path,key)
    def metric(self,name):
        d=self.get('/metrics')[1].decode(); m=re.findall('^'+re.escape(name)+r'(?:\{[^}]*\})? (\S+)$',d,re.M); return sum(map(float,m)) if m else 0
    def gauge(self,pat):
        d=self.get('/metrics')[1].decode(); m=re.findall(pat,d,re.M); return sum(map(float,m)) if m else 0
    def rss(self):
        return int(re.search(r'RssAnon:\s+(\d+)',open(f'/proc/{self.proc.pid}/status').read()).group(1))//1024
    def stop(self): self.proc.terminate(); self.proc.wait()
off=dict(SCRIP_JOBS__CONCURRENCY='0',SCRIP_JOBS__LONG_CONCURRENCY='0',SCRIP_PROJECTION__INTERVAL_MS='0',SCRIP_WEBHOOKS__POLL_MS='0')
s=Srv(**off)
t=json.loads(s.req('POST','/v1/tenants',PK,json.dumps({'name':'drain'}))[1])['id']
key=json.loads(s.req('POST',f'/v1/tenants/{t}/api-keys',PK,json.dumps({'name':'d','scope':'OPERATOR'}))[1])['secret']
def batches(n,mode):
    size=5000; todo=list(range(0,n,size)); lock=threading.Lock()
    def work():
        while True:
            with lock:
                if not todo: return
                a=todo.pop()
            lines=[]
            for i in range(a,min(a+size,n)):
                l={'op':'grant','member_id':f'm-{i%50000}','points':1}
                if mode: l['mode']='async'
                lines.append(json.dumps(l))
            st,d=s.req('POST','/v1/batch',key,'\n'.join(lines),'application/x-ndjson')
            if st!=200 or b'"error"' in d: print(st,d[:300]); os._exit(1)
    ths=[threading.Thread(target=work) for _ in range(4)]; [x.start() for x in ths]; [x.join() for x in ths]
what=sys.argv[1]
if what=='jobs':
    b=time.time(); batches(JOBS,True); print(f'{JOBS} jobs enqueued in {time.time()-b:.1f} s',flush=True); s.stop()
    s=Srv(SCRIP_PROJECTION__INTERVAL_MS='0',SCRIP_WEBHOOKS__POLL_MS='0'); b=time.time(); peak=0
    while True:
        done=s.gauge(r'^scrip_jobs_total\{job="points_grant",result="ok"\} (\S+)'); peak=max(peak,s.rss())
        if done>=JOBS or time.time()-b>150: break
        time.sleep(.25)
    print(f'jobs done {done:.0f} in {time.time()-b:.1f} s, {done/(time.time()-b):.0f}/s, RssAnon peak {peak} MB',flush=True); s.stop()
else:
    b=time.time(); batches(EVENTS,False); print(f'{EVENTS} events made in {time.time()-b:.1f} s',flush=True); s.stop()
    env=dict(off)
    if what=='nats': env['SCRIP_EVENTS__NATS_URL']=os.environ['NATS']
    s=Srv(**env); b=time.time(); peak=0; lag=0; name='scrip_broker_published_total'
    while True:
        done=s.metric(name); peak=max(peak,s.rss()); lag=max(lag,s.metric('scrip_broker_lag_seconds'))
        if done>=EVENTS or time.time()-b>130: break
        time.sleep(.25)
    print(f'{what}: {done:.0f} published in {time.time()-b:.1f} s, {done/(time.time()-b):.0f}/s, RssAnon peak {peak} MB, lag at most {lag:.0f} s, at the end {s.metric("scrip_broker_lag_seconds"):.1f}',flush=True); s.stop()
