# Examples for the rules beside this file; read by semgrep only, never run.
# ruleid: code-from-data
eval(text_of_a_customer)
# ruleid: code-from-data
pickle.loads(blob)
# ok: code-from-data
json.loads(blob)
# ruleid: shell
os.system("ls " + name)
# ruleid: shell
subprocess.run(command, shell=True)
# ok: shell
subprocess.run(["ls", name], check=True)
# ruleid: sql-from-text
session.execute(text(f"select * from contacts where name = '{name}'"))
# ok: sql-from-text
session.execute(text(f"select {_COLUMNS} from contacts where name = :name"), {"name": name})
# ruleid: sql-concatenated
session.execute(text("select * from contacts where name = '%s'" % name))
# ruleid: unguarded-request
client = httpx.AsyncClient(timeout=5)
# ok: unguarded-request
client = guarded_client(timeout=5, max_bytes=1000)
# ruleid: certificates-off
connect(host, verify=False)
# ruleid: certificates-off
context.check_hostname = False
# ok: certificates-off
connect(host, verify=True)
# ruleid: weak-random
reset_token = uuid4()
# ruleid: weak-random
api_key = random.choice(alphabet)
# ok: weak-random
message_id = uuid4()
# ok: weak-random
reset_token = secrets.token_urlsafe(32)
# ruleid: weak-hash
hashlib.md5(data)
# ok: weak-hash
hashlib.sha1(data, usedforsecurity=False)
# ruleid: unauthenticated-cipher
cipher = Cipher(AES(key), modes.CBC(iv))
# ruleid: token-algorithm
claims = jwt.decode(token, key)
# ok: token-algorithm
claims = jwt.decode(token, key, algorithms=["HS256"])
# ruleid: template-from-text
page = jinja2.Template(prompt).render()
# ok: template-from-text
page = ImmutableSandboxedEnvironment().from_string(prompt)
# ruleid: tenant-from-nowhere
context = TenantContext(tenant_id, actor="agent")
# ruleid: past-the-walls
session = database.platform_session("because I can")
# ok: past-the-walls
session = database.tenant_session(context)
# ruleid: xml-with-entities
tree = xml.etree.ElementTree.fromstring(mail)
